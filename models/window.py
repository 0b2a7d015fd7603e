"""A window of days read from the lake's Parquet into whole requests and the histories they point into.

The day files never change when the window moves: a sample carries its user and time, and its place in the window's
histories is found when the window is read. Whether a day may be read at all is the caller's question
(`assets.samples.window_inputs`); here a file that is not there is an error.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from models.contract import Contract
from models.home import EARLIER_DAY, Home
from models.requests import MASKED, Ints, Requests, Sequences, group


def read_requests(home: Home, contract: Contract, days: Sequence[str]) -> Requests:
    """The samples of `days` (ascending) as whole requests, raw keys, with every history that they may look into.

    A task that the samples do not know (a model may be older than the contract) is masked. Raises FileNotFoundError, naming
    the day, when a partition is not there.
    """
    tables = [_read(home.samples(day)) for day in days]
    table = pa.concat_tables(tables)
    user, time = _column(table, "user"), _column(table, "time")
    bounds = np.cumsum([0, *(len(t) for t in tables)])
    # Two days never share a request: a day boundary is a change of time.
    offsets = np.unique(np.concatenate([b + group(user[b:e], time[b:e]) for b, e in itertools.pairwise(bounds)]))
    first = offsets[:-1]
    since = np.empty(len(first), np.int64)
    for day, begin, end in zip(days, bounds[:-1], bounds[1:], strict=True):
        since[np.searchsorted(first, begin) : np.searchsorted(first, end)] = contract.history_start(day)
    sequences = read_sequences(home, contract, contract.history_days(days[0], days[-1]))
    start, stop = sequences.span(user[first], time[first], since, contract.lengths)
    return Requests(
        user=_stack(table, contract.user_columns)[first],
        time=time[first],
        offsets=offsets,
        item=_stack(table, contract.item_columns),
        context=_stack(table, contract.context_columns),
        label=np.stack([_label(table, f"label_{t}") for t in contract.task_names], axis=1),
        start=start,
        end=stop,
        sequences=sequences,
    )


def read_sequences(home: Home, contract: Contract, days: Sequence[str]) -> Sequences:
    """The histories of calendar `days` (ascending), and of the time before the calendar where `days` reach its start."""
    wanted = list(days)
    if wanted and wanted[0] == str(contract.calendar.first_day) and home.histories(EARLIER_DAY).is_file():
        wanted.insert(0, EARLIER_DAY)
    tables = [_read(home.histories(day)) for day in wanted]
    users, tokens, times = [], [], []
    for action in range(len(contract.actions)):
        parts = [_action(table, action) for table in tables]
        users.append(np.concatenate([_column(p, "user") for p in parts] or [np.empty(0, np.int64)]))
        times.append(np.concatenate([_column(p, "time") for p in parts] or [np.empty(0, np.int64)]))
        tokens.append(
            np.concatenate(
                [_stack(p, contract.item_columns) for p in parts] or [np.empty((0, len(contract.item_columns)), np.int64)]
            )
        )
    return Sequences.from_runs(users, tokens, times)


def _action(table: pa.Table, action: int) -> pa.Table:
    """The rows of one action: a contiguous slice, since a day's file is ordered by action first."""
    begin, end = np.searchsorted(_column(table, "action"), [action, action + 1])
    return table.slice(begin, end - begin)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: this day is needed and not there; ingest and sample it first")
    return pq.read_table(path, memory_map=True, partitioning=None)


def _column(table: pa.Table, name: str) -> Ints:
    values: Ints = table.column(name).to_numpy()
    return values


def _label(table: pa.Table, name: str) -> NDArray[np.int8]:
    if name not in table.column_names:
        return np.full(len(table), MASKED, np.int8)
    labels: NDArray[np.int8] = table.column(name).to_numpy().astype(np.int8)
    return labels


def _stack(table: pa.Table, names: Sequence[str]) -> Ints:
    out = np.empty((len(table), len(names)), np.int64)
    for place, name in enumerate(names):
        out[:, place] = _column(table, name)
    return out
