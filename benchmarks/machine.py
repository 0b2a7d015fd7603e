"""What a figure was measured on and with: it stands beside every figure that is kept."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch


def about() -> dict[str, Any]:
    """The day, the machine and its load now, and the versions of what does the work."""
    return {
        "when": datetime.now(UTC).date().isoformat(),
        "machine": {"load": os.getloadavg()[0], "cpu": _cpu(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
