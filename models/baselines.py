"""The two models that anyone would try first: smoothed item popularity, and LightGBM on counts, recencies and statistics.

They are reference rows of the verdict and are never served. Both score raw-key requests, as a neural ranker does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from models.contract import Contract
from models.requests import NULL_KEY, Ints, Requests, shared
from models.statistics import PRIOR, Statistics, days_of

ROUNDS = 300
CHUNK = 20_000
"""Samples whose histories are laid out at once while counting."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Popularity:
    """Per task the item's positive rate in training, smoothed towards the base rate: (positives + 20·base) / (samples + 20).

    items (V,) sorted keys · rates (V, T) · base (T,)
    """

    contract: Contract
    items: Ints
    rates: Floats
    base: Floats
    name: ClassVar[str] = "popularity"

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.contract.task_names

    @classmethod
    def fit(cls, contract: Contract, training: Requests) -> Self:
        """Raises ValueError when there is nothing to count."""
        if not len(training):
            raise ValueError(
                "no training samples: popularity needs at least one; widen training.window_days or ingest more days"
            )
        items, item = np.unique(training.item[:, 0], return_inverse=True)
        known = training.label >= 0
        base = (training.label == 1).sum(0) / np.maximum(known.sum(0), 1)
        shape = (len(items), len(base))
        positives, samples = np.zeros(shape), np.zeros(shape)
        np.add.at(positives, item, training.label == 1)
        np.add.at(samples, item, known)
        return cls(contract, items, (positives + PRIOR * base) / (samples + PRIOR), base)

    def score(self, requests: Requests) -> Floats:
        """(B, T) probabilities; an item never seen gets the base rate."""
        keys = requests.item[:, 0]
        place = np.minimum(np.searchsorted(self.items, keys), len(self.items) - 1)
        return np.where((self.items[place] == keys)[:, None], self.rates[place], self.base)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        save_file({"items": self.items, "rates": self.rates, "base": self.base}, folder / "rates.safetensors")
        _write_spec(folder, self.name, self.contract)

    @classmethod
    def load(cls, folder: Path) -> Self:
        arrays = load_file(folder / "rates.safetensors")
        return cls(_read_contract(folder), arrays["items"], arrays["rates"], arrays["base"])


@dataclass(frozen=True)
class LightGBM:
    """One gradient-boosted model per task on `count_features` and the statistics that a neural model has too.

    A task with one class in training keeps its base rate.
    """

    contract: Contract
    boosters: tuple[lightgbm.Booster | None, ...]
    base: Floats
    statistics: dict[str, Statistics]
    name: ClassVar[str] = "lightgbm"

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.contract.task_names

    @classmethod
    def fit(cls, contract: Contract, training: Requests, validation: Requests) -> Self:
        """Early stopping on `validation`'s log loss, where that has both classes; the same seed gives the same trees.

        Raises ValueError when there is nothing to train on.
        """
        if not len(training):
            raise ValueError("no training samples: lightgbm needs at least one; widen training.window_days or ingest more days")
        statistics = Statistics.fit(contract, (training, validation))
        x, x_validation = (_features(contract, statistics, part) for part in (training, validation))
        boosters, base = [], []
        for task in range(len(contract.tasks)):
            known, y = training.label[:, task] >= 0, training.label[:, task]
            base.append(float((y == 1).sum() / max(known.sum(), 1)))
            both = {0, 1} <= set(y.tolist())
            boosters.append(_boost(contract, x[known], y[known], x_validation, validation.label[:, task]) if both else None)
        return cls(contract, tuple(boosters), np.array(base), statistics)

    def score(self, requests: Requests) -> Floats:
        """(B, T) probabilities."""
        x = _features(self.contract, self.statistics, requests)
        columns = [
            np.full(len(x), base) if booster is None else np.asarray(booster.predict(x), np.float64)
            for booster, base in zip(self.boosters, self.base, strict=True)
        ]
        return np.stack(columns, axis=1) if len(x) else np.empty((0, len(columns)))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        for task, booster in zip(self.tasks, self.boosters, strict=True):
            if booster is not None:
                booster.save_model(str(folder / f"{task}.txt"))
        save_file({"base": self.base, **Statistics.kept(self.statistics)}, folder / "tables.safetensors")
        _write_spec(folder, self.name, self.contract)

    @classmethod
    def load(cls, folder: Path) -> Self:
        contract = _read_contract(folder)
        paths = [folder / f"{task}.txt" for task in contract.tasks]
        boosters = tuple(lightgbm.Booster(model_file=str(p)) if p.is_file() else None for p in paths)
        arrays = load_file(folder / "tables.safetensors")
        return cls(contract, boosters, arrays["base"], Statistics.read(arrays))


Baseline = Popularity | LightGBM


def load(folder: Path) -> Baseline:
    """The baseline saved in `folder`."""
    kinds: dict[str, type[Popularity] | type[LightGBM]] = {k.name: k for k in (Popularity, LightGBM)}
    return kinds[json.loads((folder / "spec.json").read_text())["name"]].load(folder)


def feature_names(contract: Contract) -> list[str]:
    """The columns of `count_features`."""
    names = [*contract.user_columns[1:], *contract.item_columns[1:], *contract.context_columns]
    for action in contract.actions:
        names += [f"{action}_count", f"{action}_recency"]
        item, *features = dict.fromkeys(contract.item_fields)
        for what in (f"same_{item}", *(f"same_{name}" for name in features), *(f"first_same_{name}" for name in features)):
            names += [f"{action}_{what}_count", f"{action}_{what}_recency"]
        names.append(f"{action}_item_popularity")
    return names


def _features(contract: Contract, statistics: dict[str, Statistics], requests: Requests) -> Floats:
    """(B, features + 2T): `count_features`, then the statistics of the item and of the user by task."""
    day = days_of(contract, requests.time)
    item = statistics["item"].values(requests.item[:, 0], day[requests.request])
    user = statistics["user"].values(requests.user[:, 0], day)[requests.request]
    return np.concatenate([count_features(contract, requests), item, user], axis=1)


def count_features(contract: Contract, requests: Requests) -> Floats:
    """(B, features): side features, and per action: the user's count and log recency, the same of what is told of the
    candidate in the history (`_same_as_candidate`), and how often anybody took the action on the item in the history days
    before this one. Never seen → NaN recency.
    """
    request = requests.request
    columns: list[NDArray[Any]] = [
        *requests.user[request, 1:].T.astype(np.float64),
        *requests.item[:, 1:].T.astype(np.float64),
        *requests.context.T.astype(np.float64),
    ]
    columns = [np.where(c == float(NULL_KEY), np.nan, c) for c in columns]
    since, midnight = (bound[request] for bound in _days_before(contract, requests.time))
    for action in range(len(contract.actions)):
        lengths = (requests.end - requests.start)[:, action]
        times = requests.sequences.times[action]
        last = times[np.maximum(requests.end[:, action] - 1, 0)] if len(times) else np.zeros(len(lengths), np.int64)
        recency = np.where(lengths > 0, _log_hours(np.maximum(requests.time - last, 0)), np.nan)
        columns += [lengths[request].astype(np.float64), recency[request]]
        columns += _same_as_candidate(contract, requests, action)
        columns.append(_popularity(requests, action, since, midnight))
    return np.stack(columns, axis=1)


def _log_hours(gap_ms: NDArray[Any]) -> Floats:
    return np.log1p(gap_ms / 3_600_000)


def _days_before(contract: Contract, times: Ints) -> tuple[Ints, Ints]:
    """[start, end) in epoch ms of the history days before each moment's own: as long for every sample, whatever was read."""
    days, place = np.unique(days_of(contract, times), return_inverse=True)
    bounds = [(contract.history_start(day), contract.day_start(day)) for day in map(date.fromordinal, days.tolist())]
    since, midnight = np.array(bounds, np.int64).reshape(-1, 2).T
    return since[place], midnight[place]


def _same_as_candidate(contract: Contract, requests: Requests, action: int) -> list[Floats]:
    """(count, log recency), each (B,), of the history tokens that share the candidate's item; by feature of those that share
    it (of a list: an entry of it); by feature of those that share it and nothing before it. What is missing equals nothing.
    """
    tokens, times = requests.sequences.tokens[action], requests.sequences.times[action]
    kinds = 2 * len(contract.item_slots) - 1
    out = [np.zeros(len(requests)) if n % 2 == 0 else np.full(len(requests), np.nan) for n in range(2 * kinds)]
    request = requests.request
    for begin in range(0, len(requests), CHUNK):
        rows = np.arange(begin, min(begin + CHUNK, len(requests)))
        starts = requests.start[request[rows], action]
        sizes = requests.end[request[rows], action] - starts
        row = np.repeat(rows, sizes)
        token = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes) + np.arange(sizes.sum())
        for kind, found in enumerate(shared(requests.item[row], tokens[token], contract.item_slots, NULL_KEY)):
            hit, when = row[found], times[token[found]]
            np.add.at(out[2 * kind], hit, 1.0)
            # Tokens are in time order, so the last assignment to a row is its newest.
            out[2 * kind + 1][hit] = _log_hours(requests.time[request[hit]] - when)
    return out


def _popularity(requests: Requests, action: int, since: Ints, before: Ints) -> Floats:
    """How often anybody took the action on each candidate's item in [since, before), each (B,)."""
    items, times = requests.sequences.tokens[action][:, 0], requests.sequences.times[action]
    if not len(items):
        return np.zeros(len(requests))
    order = np.lexsort((times, items))
    distinct, rank = np.unique(items[order], return_inverse=True)
    base, width = times.min(), int(times.max() - times.min()) + 2
    key = rank * width + (times[order] - base)
    place = np.minimum(np.searchsorted(distinct, requests.item[:, 0]), len(distinct) - 1)
    until, start = (np.searchsorted(key, place * width + np.clip(bound - base, 0, width - 1)) for bound in (before, since))
    count = until - start
    return np.where(distinct[place] == requests.item[:, 0], count, 0).astype(np.float64)


def _boost(
    contract: Contract, x: Floats, y: NDArray[Any], x_validation: Floats, y_validation: NDArray[Any]
) -> lightgbm.Booster:
    names = feature_names(contract) + [f"{kind}_{task}_rate" for kind in ("item", "user") for task in contract.tasks]
    parameters = {
        "objective": "binary", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50, "lambda_l2": 1.0,
        "seed": contract.training.seed, "deterministic": True, "force_row_wise": True, "num_threads": 2, "verbosity": -1,
    }  # fmt: skip
    known = y_validation >= 0
    data = lightgbm.Dataset(x, y, feature_name=names)
    if {0, 1} <= set(y_validation.tolist()):
        held_out = lightgbm.Dataset(x_validation[known], y_validation[known], reference=data)
        stop = lightgbm.early_stopping(20, verbose=False)
        return lightgbm.train(parameters, data, ROUNDS, valid_sets=[held_out], callbacks=[stop])
    return lightgbm.train(parameters, data, ROUNDS // 3)


def _write_spec(folder: Path, name: str, contract: Contract) -> None:
    spec = {"name": name, "contract": contract.model_dump(mode="json")}
    (folder / "spec.json").write_text(json.dumps(spec, indent=1) + "\n")


def _read_contract(folder: Path) -> Contract:
    return Contract.model_validate(json.loads((folder / "spec.json").read_text())["contract"])
