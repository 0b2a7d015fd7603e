"""What a moment says by itself: the context fields that the contract derives from a request's time."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.contract import Contract
from models.requests import Ints


def derived_context(contract: Contract, times: Ints) -> Ints:
    """(U, derived): local hour 0…23 and weekday 0 (Monday)…6 of epoch milliseconds `times` (U,), in contract order."""
    local = pa.array(times, pa.int64()).cast(pa.timestamp("ms", tz="UTC")).cast(pa.timestamp("ms", tz=contract.time.zone))
    read = {"hour": pc.hour, "weekday": pc.day_of_week}
    columns = [read[name](local).to_numpy(zero_copy_only=False) for name in contract.context.derived]
    return np.stack(columns, axis=1).astype(np.int64) if columns else np.empty((len(times), 0), np.int64)
