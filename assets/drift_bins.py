"""The bins that drift is measured on, fixed by the reference: few, each with a label for people, in an order for the eye."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.keys import key_numbers
from models.requests import NULL_KEY, Ints

TOP = 20
"""Keys of a feature or context field that have a bin of their own; the rest share 'other'."""

DECILES = np.linspace(0.1, 0.9, 9)
FIFTHS = np.linspace(0, 0.8, 5)


@dataclass(frozen=True)
class Bins:
    """`names` in order; each side's values as positions in them."""

    names: list[str]
    reference: Ints
    served: Ints

    def labels(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(reference, served) as labels."""
        names = np.array(self.names, dtype=object)
        return names[self.reference], names[self.served]

    def shares(self) -> tuple[dict[str, float], dict[str, float]]:
        """(reference, served): the share of rows in each bin, by its label and in its order."""
        first, second = (
            np.bincount(side, minlength=len(self.names)) / max(len(side), 1) for side in (self.reference, self.served)
        )
        return _by_name(self.names, first), _by_name(self.names, second)


def _by_name(names: list[str], shares: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(share), 6) for name, share in zip(names, shares, strict=True)}


def probabilities(reference: NDArray[np.float64], served: NDArray[np.float64]) -> Bins:
    """Deciles of the reference; fewer where many are equal."""
    edges = np.unique(np.quantile(reference, DECILES))
    # As many digits as tell the edges apart: two bins of one name would be counted as one.
    ends = next(told for digits in range(3, 18) if len(set(told := [f"{e:.{digits}g}" for e in edges])) == len(edges))
    names = [f"below {ends[0]}", *(f"{a} to {b}" for a, b in pairwise(ends)), f"from {ends[-1]}"]
    return _between(names, edges, reference, served)


def lengths(reference: Ints, served: Ints) -> Bins:
    """An empty history, then fifths of the lengths that the reference has besides."""
    filled = reference[reference > 0]
    edges = np.unique(np.append(1, np.quantile(filled, FIFTHS, method="higher") if len(filled) else [])).astype(np.int64)
    names = ["0", *(str(a) if b == a + 1 else f"{a} to {b - 1}" for a, b in pairwise(edges)), f"{edges[-1]} or more"]
    return _between(names, edges, reference, served)


def measures(reference: Ints, served: Ints) -> Bins:
    """Keys of measures: those missing, then deciles of the measures that the reference has; fewer where many are equal."""
    values = [key_numbers(side) for side in (reference, served)]
    known = [side[~np.isnan(side)] for side in values]
    if not len(known[0]):
        return keys(reference, served)
    inner = probabilities(*known)
    return Bins(
        ["missing", *inner.names], *(_with_missing(v, p) for v, p in zip(values, (inner.reference, inner.served), strict=True))
    )


def _with_missing(values: NDArray[np.float64], places: Ints) -> Ints:
    """Place 0 for a missing measure, else one more than its place among the others."""
    out = np.zeros(len(values), np.int64)
    out[~np.isnan(values)] = places + 1
    return out


def keys(reference: Ints, served: Ints, texts: Mapping[int, str] | None = None) -> Bins:
    """The TOP most frequent keys of the reference (of equal ones the smaller), then 'other'; a missing key is one of them.

    `texts`: what the keys of texts stand for.
    """
    distinct, counts = np.unique(reference, return_counts=True)
    kept = np.sort(distinct[np.lexsort((distinct, -counts))][:TOP])
    names = ["missing" if key == NULL_KEY else (texts or {}).get(int(key), str(key)) for key in kept]
    return Bins([*names, "other"], _places(kept, reference), _places(kept, served))


def unknown(reference: Ints, served: Ints) -> Bins:
    """0: the model knows the id; 1: it does not."""
    return Bins(["known", "unknown"], reference, served)


def _places(kept: Ints, values: Ints) -> Ints:
    place = np.minimum(np.searchsorted(kept, values), len(kept) - 1)
    return np.where(kept[place] == values, place, len(kept))


def _between(names: list[str], edges: NDArray[Any], reference: NDArray[Any], served: NDArray[Any]) -> Bins:
    return Bins(names, *(np.searchsorted(edges, side, side="right").astype(np.int64) for side in (reference, served)))
