"""Bottoms: from a batch to the streams that a head reads. A file is one, of its own name; its class is declared as `BOTTOM`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.parts import Bottom


def named(name: str) -> type[Bottom]:
    """The bottom of this name, one of `models.names.parts("bottoms")`."""
    bottom: type[Bottom] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").BOTTOM
    return bottom
