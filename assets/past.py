"""What users of the simulated shop remember, and what each behaviour reads of it: where tasks agree and where they conflict.

A user remembers the last clicks and carts. Of them a week is read, in two signals of a candidate item:

- the *selection*, tanh(Σ weight of each remembered click), is read by each behaviour for itself. Without conflict the weight is
  1 for clicks of the item's category, 0 for others, whoever reads; with full conflict a click is read by one behaviour at most:

      click      the latest `RECENT` clicks, of those the ones of the category
      buy        the earlier ones, of those the ones of the category
      cart       other categories, the same price band
      favourite  other categories, one price band dearer

  In between, at `selection_conflict` c, the weight is (1 − c) · the common one + c · the behaviour's own.
- the *intent*, tanh(carts of the item's category), is the same for all. A cart raises cart and buy. It raises click and
  favourite too, but lowers them in the categories where the tasks are opposed, which are the share `sign_conflict` of all. So
  what the knob turns is the sign and never the size.

`Scale` puts both on one footing, so that neither knob weakens what history says of any behaviour.
Letters: V users · B rows (impressions) · L remembered events.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

BEHAVIOURS = ("click", "cart", "favourite", "buy")

OPPOSED = np.array([True, False, True, False])
"""The behaviours that a cart lowers where the tasks are opposed."""

SPREAD = np.array([0.75, 1.4, 0.7, 1.15])
"""Standard deviation, over a day's impressions, of the part of each behaviour's logit that history explains."""

INTENT = 0.6
"""Size of the intent beside the selection, both at standard deviation 1."""

REMEMBERED = 16
"""Events of each behaviour that a user's memory keeps; no fewer than a request has items, so none overwrites itself."""

RECENT = 4
"""Clicks that are the latest of a user; all of the moment of the last of them are."""

WEEK = 168.0
"""Hours after which an event is not read any more: within the history that a contract gives to its models."""

SMALLEST = 0.15
"""A standard deviation below it (on a first day, when there is nothing to remember yet) is not blown up to 1."""


class Memory:
    """The last `REMEMBERED` events of one behaviour of every user, as a ring: items (−1: empty) and hours, each (V, L)."""

    def __init__(self, users: int) -> None:
        self.item = np.full((users, REMEMBERED), -1, np.int32)
        self.hour = np.zeros((users, REMEMBERED), np.float32)
        self.pushed = np.zeros(users, np.int64)

    def push(self, user: Ints, item: Ints, hour: Floats) -> None:
        """Remember events (N,), ordered by user; at most `REMEMBERED` of a user in one call."""
        first = np.searchsorted(user, user)  # of equal users the first row, so the difference counts within the user
        slot = (self.pushed[user] + np.arange(len(user)) - first) % REMEMBERED
        self.item[user, slot] = item
        self.hour[user, slot] = hour
        np.add.at(self.pushed, user, 1)

    def copy(self, users: slice) -> list[NDArray[Any]]:
        """What these users remember, to be given to `restore`."""
        return [self.item[users].copy(), self.hour[users].copy(), self.pushed[users].copy()]

    def restore(self, users: slice, kept: list[NDArray[Any]]) -> None:
        """Make these users remember what they did at `copy`."""
        self.item[users], self.hour[users], self.pushed[users] = kept

    def read(self, user: Ints, now: Floats) -> tuple[Ints, Bools, Bools]:
        """For moments (B,) of users (B,): items, which of them count (are there, not over a week old), which are the latest.

        Each (B, L). Events of one moment are the latest together, since nothing in a log says which of them came first.
        """
        item = self.item[user]
        hour = np.where(item >= 0, self.hour[user], -np.inf)
        last = -np.partition(-hour, RECENT - 1, axis=1)[:, RECENT - 1 : RECENT]
        return item, now[:, None] - hour <= WEEK, hour >= last


def selection(
    clicks: tuple[Ints, Bools, Bools], item: Ints, category: Ints, price: Ints, conflict: float
) -> NDArray[np.float64]:
    """The selection (B, 4) of each behaviour: `clicks` as `Memory.read` gives them, candidates (B,), tables of all items."""
    before, counts, latest = clicks
    alike = counts & (category[before] == category[item][:, None])
    other, dearer = counts & ~alike, price[before] - price[item][:, None]
    own = [alike & latest, other & (dearer == 0), other & (dearer == 1), alike & ~latest]
    amount = conflict * np.stack([mask.sum(1) for mask in own], axis=1) + (1 - conflict) * alike.sum(1)[:, None]
    out: NDArray[np.float64] = np.tanh(amount)
    return out


def intent(carts: tuple[Ints, Bools, Bools], item: Ints, category: Ints) -> NDArray[np.float64]:
    """The intent (B,): `carts` as `Memory.read` gives them, candidates (B,), the category of all items."""
    before, counts, _ = carts
    out: NDArray[np.float64] = np.tanh((counts & (category[before] == category[item][:, None])).sum(1))
    return out


@dataclass(frozen=True)
class Scale:
    """From the raw signals to the part of the logits that history explains, with a given spread for each behaviour.

    Selection and intent are centred and divided by their standard deviations, the intent is given its size and sign, and
    their sum is centred and divided by its own: clicks and carts of one category go together, so that with one sign they
    would add up to more than with the other. (centre, deviation) of the parts (5,) and of the sum (4,), over a day's rows.
    """

    part: tuple[Floats, Floats] = field(default_factory=lambda: (np.zeros(5), np.ones(5)))
    whole: tuple[Floats, Floats] = field(default_factory=lambda: (np.zeros(4), np.ones(4)))

    @classmethod
    def fit(cls, raw: Floats, sign: Floats) -> Scale:
        """The scale at which `history` of these rows has the standard deviations `SPREAD`; see there for the arguments."""
        centre, deviation = raw.mean(0), raw.std(0)
        exact = cls((centre, np.where(deviation > 0, deviation, 1.0)))._sum(raw, sign).std(0)
        part = centre, np.maximum(deviation, SMALLEST)
        return cls(part, (cls(part)._sum(raw, sign).mean(0), np.maximum(exact, SMALLEST)))

    def history(self, raw: Floats, sign: Floats) -> Floats:
        """(B, 4) of `raw` (B, 5), the selection of each behaviour and the intent; `sign` (B, 4): ±1, of the intent."""
        centre, deviation = self.whole
        out: Floats = SPREAD * (self._sum(raw, sign) - centre) / deviation
        return out

    def _sum(self, raw: Floats, sign: Floats) -> Floats:
        centre, deviation = self.part
        standard = (raw - centre) / deviation
        out: Floats = standard[:, :4] + INTENT * sign * standard[:, 4:]
        return out
