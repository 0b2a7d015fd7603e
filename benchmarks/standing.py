"""What follows from the leaderboard's runs: shares of the reachable gain, paired differences, and which claims hold.

Of a task in a world, AUCs against the true probabilities (`benchmarks.oracle`):

    share = (AUC of the model − AUC of item popularity) ÷ (AUC of the true probabilities − AUC of item popularity)

Over n worlds a figure is the mean m of one value v_w a world, and its 95 % interval is Student's:

    m ± t(0.975; n − 1) · s / √n,   s² = Σ_w (v_w − m)² / (n − 1)

A difference of two models is paired: v_w is their difference in world w. Resampling five worlds would give intervals that are
too short, so it is not done. What an interval covers is the next world of this kind, trained in with the same seed. On a real
log a difference comes of one training each; its interval is the middle 95 % of the paired differences over resampled users, so
it covers other users of that day, and no other seed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from benchmarks import plan
from benchmarks.runs import GRADIENTS, MODEL, Record
from models.judgement import MIN_EACH, MIN_USERS

LEVEL = 0.95
ENOUGH_SHARE = 0.90
ENOUGH_GAIN = 0.05
STARVED = "cart"
"""The task that selection conflict starves."""

Cell = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval over n worlds (resampled users: n is 1); no interval from one value."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int = 1

    @property
    def half(self) -> float | None:
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def noise(self) -> bool:
        """Whether 0 is in the interval, or there is none."""
        return self.low is None or self.high is None or self.low <= 0 <= self.high


@dataclass(frozen=True)
class Claim:
    """Something wanted, what was measured, and whether it is so; None where too little is measured to say."""

    wanted: str
    measured: str
    met: bool | None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and interval by the formula at the top; None of no value."""
    v = np.asarray(values, float)
    if not len(v):
        return None
    if len(v) == 1:
        return Estimate(float(v[0]))
    half = float(student.ppf((1 + LEVEL) / 2, len(v) - 1) * v.std(ddof=1) / math.sqrt(len(v)))
    return Estimate(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half, len(v))


def ordered(models: Iterable[str]) -> list[str]:
    """Each once: those of the plan in its order, then others by name."""
    there = set(models)
    return [*(m for m in plan.MODELS if m in there), *sorted(there - set(plan.MODELS))]


@dataclass(frozen=True)
class Board:
    """The runs of one kind of log, the newest of each: by model and variant, by world (seed) or day."""

    by_model: Mapping[tuple[str, str], Mapping[str, Record]]

    @classmethod
    def of(cls, records: Iterable[Record]) -> Board:
        """Of each log only runs of its newest content count: others are of another log of that name."""
        chosen = [r for r in records if r["kind"] == MODEL]
        newest = {place(r): r["content"] for r in chosen}
        by_model: dict[tuple[str, str], dict[str, Record]] = {}
        for record in chosen:
            if record["content"] == newest[place(record)]:
                by_model.setdefault((record["model"], record["variant"]), {})[place(record)] = record
        return cls(by_model)

    @property
    def models(self) -> list[str]:
        """Models with a run without an ablation."""
        return ordered(model for model, variant in self.by_model if not variant)

    @property
    def variants(self) -> list[str]:
        """Ablations of DTRN in the order in which they were first made."""
        return [variant for model, variant in self.by_model if variant and model == plan.OURS]

    @property
    def common(self) -> list[str]:
        """The worlds (or the day) that models are averaged over: where DTRN ran; all there are while it ran nowhere."""
        return list(self.runs(plan.OURS)) or list(dict.fromkeys(name for runs in self.by_model.values() for name in runs))

    def mean(self, values: Mapping[str, float]) -> Estimate | None:
        """The mean of a value a world, over these worlds."""
        return estimate([values[world] for world in self.common if world in values])

    def whole(self, model: str, variant: str = "") -> bool:
        """Whether a model ran in all of these, so that its mean may stand beside another's."""
        return set(self.common) <= set(self.runs(model, variant))

    @property
    def tasks(self) -> list[str]:
        return list(dict.fromkeys(task for runs in self.by_model.values() for r in runs.values() for task in r["tasks"]))

    def runs(self, model: str, variant: str = "") -> Mapping[str, Record]:
        return self.by_model.get((model, variant), {})

    def soft(self, model: str, task: str, variant: str = "") -> dict[str, float]:
        """By world: the AUC without label noise."""
        return _values(self.runs(model, variant), lambda r: r["tasks"][task].get("soft"))

    def sampled(self, model: str, task: str, variant: str = "") -> dict[str, float]:
        """By world or day: the AUC against the labels that were drawn."""
        return _values(self.runs(model, variant), lambda r: r["tasks"][task]["auc"])

    def best(self, task: str, against: str = "best_soft") -> dict[str, float]:
        """By world: the best reachable AUC without label noise, or (`best_auc`) against the labels that were drawn."""
        runs = {name: run for found in self.by_model.values() for name, run in found.items()}
        return _values(runs, lambda r: r["tasks"][task].get(against))

    def share(self, model: str, task: str, variant: str = "") -> dict[str, float]:
        """By world: the share of the reachable gain; only where popularity was scored too and there is something to gain."""
        base = self.soft("popularity", task)
        return _values(self.runs(model, variant), lambda r: share(r["tasks"][task], base.get(place(r))))

    def difference(self, one: tuple[str, str], other: tuple[str, str], task: str) -> Estimate | None:
        """AUC without label noise of one (model, variant) less that of another, paired over the worlds that both have."""
        a, b = self.soft(one[0], task, one[1]), self.soft(other[0], task, other[1])
        return estimate([a[w] - b[w] for w in a if w in b])


def place(record: Record) -> str:
    """The name of the log of a run: its day, and of a world its seed."""
    where = record["where"]
    world = where["world"]
    return f"{where['dataset']} {where['day']}" if world is None else f"{where['dataset']} seed {world['seed']}"


def processor(runs: Iterable[Record]) -> str | None:
    """The processor that most of the runs were made on: seconds of different ones are not put side by side."""
    return next((name for name, _ in Counter(run["machine"]["cpu"] for run in runs).most_common(1)), None)


def share(measured: Record, base: float | None) -> float | None:
    """The share of the reachable gain of one task's AUCs, by the formula at the top; None where there is none to reach."""
    soft, best = measured.get("soft"), measured.get("best_soft")
    if soft is None or best is None or base is None or best <= base:
        return None
    return float((soft - base) / (best - base))


def cell(records: Iterable[Record], conflict: Cell, world: Record) -> Board:
    """The worlds of one (selection, sign) conflict, of the sizes of `world` (users, items, impressions)."""
    sizes = ("users", "items", "impressions")

    def fits(record: Record) -> bool:
        there = record["where"]["world"]
        return (
            there is not None
            and (there["selection_conflict"], there["sign_conflict"]) == conflict
            and all(there[name] == world[name] for name in sizes)
        )

    return Board.of(r for r in records if fits(r))


def of_log(records: Iterable[Record], dataset: str, day: str) -> Board:
    """One day of a real log."""
    asked = {"dataset": dataset, "day": day, "world": None}
    return Board.of(r for r in records if r["where"] == asked)


def angles(records: Iterable[Record]) -> dict[str, Record]:
    """The newest run of each model that looked at the tasks' gradients."""
    return {r["model"]: r for r in records if r["kind"] == GRADIENTS}


def resampled(one: Record, other: Record, task: str) -> Estimate | None:
    """The difference of two models' AUCs on one real day, paired over the same resamples of users; None where undefined."""
    a, b = one["tasks"][task], other["tasks"][task]
    if a["auc"] is None or b["auc"] is None or one["content"] != other["content"]:
        return None
    both = [(x, y) for x, y in zip(a["resampled"], b["resampled"], strict=True) if x is not None and y is not None]
    drawn = [x - y for x, y in both]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(a["auc"] - b["auc"], float(low), float(high))


def judged(measured: Record) -> bool:
    """Whether a real day has positives enough of one task to say anything (the limits of `models.judgement`)."""
    return bool(measured["positives"] >= MIN_EACH and measured["users_with_positives"] >= MIN_USERS)


def best_rival(board: Board, task: str) -> str | None:
    """The model of the family with the best mean AUC, over the worlds where DTRN was scored; None until all are there.

    It is chosen by what it is then compared on, which flatters it: the comparison is hard on DTRN.
    """
    ours = board.soft(plan.OURS, task)
    rivals = {model: board.soft(model, task) for model in plan.FAMILY}
    if not ours or any(set(ours) - set(scores) for scores in rivals.values()):
        return None
    return max(rivals, key=lambda model: float(np.mean([rivals[model][w] for w in ours])))


def named_cell(conflict: Cell) -> str:
    return f"selection {conflict[0]:g}, sign {conflict[1]:g}"


def not_below(boards: Mapping[Cell, Board], tasks: Sequence[str]) -> list[Claim]:
    """DTRN against the best of the family, a claim for each kind of world and task."""
    claims = []
    for conflict, board in boards.items():
        for task in tasks:
            rival = best_rival(board, task)
            wanted = f"{named_cell(conflict)}, {task}: not below the best of the family by more than the interval"
            d = board.difference((plan.OURS, ""), (rival, ""), task) if rival else None
            if d is None or d.high is None:
                claims.append(Claim(wanted, "not measured on two worlds yet", None))
            else:
                claims.append(Claim(wanted, f"{signed(d)} to {rival}, {_counted(d)}", _decided(d, d.high >= 0)))
    return claims


def _counted(d: Estimate) -> str:
    return f"{d.n} worlds" + (f" of {len(plan.SEEDS)}" if d.n < len(plan.SEEDS) else "")


def _decided(d: Estimate, met: bool) -> bool | None:
    """Nothing is decided before all worlds are there: an interval over two of them is met by nearly anything."""
    return met if d.n >= len(plan.SEEDS) else None


def above_dmt(boards: Mapping[Cell, Board]) -> list[Claim]:
    """DTRN against DMT on the starved task, a claim for each kind of world with selection conflict."""
    claims = []
    for conflict, board in boards.items():
        if not conflict[0]:
            continue
        wanted = f"{named_cell(conflict)}, {STARVED}: at least {ENOUGH_GAIN:g} above dmt"
        d = board.difference((plan.OURS, ""), ("dmt", ""), STARVED)
        if d is None or d.low is None:
            claims.append(Claim(wanted, "not measured on two worlds yet", None))
        else:
            claims.append(Claim(wanted, f"{signed(d)}, {_counted(d)}", _decided(d, d.mean >= ENOUGH_GAIN)))
    return claims


def reached(large: Board, tasks: Sequence[str]) -> list[Claim]:
    """The share of the reachable gain that DTRN has at 2 M samples, a claim for each task."""
    claims = []
    for task in tasks:
        values = list(large.share(plan.OURS, task).values())
        wanted = f"2 M samples, {task}: at least {ENOUGH_SHARE:.0%} of the reachable gain"
        claims.append(
            Claim(wanted, f"{100 * values[-1]:.1f} %, one world", values[-1] >= ENOUGH_SHARE)
            if values
            else Claim(wanted, "not measured yet", None)
        )
    return claims


def altogether(claims: Sequence[Claim]) -> bool | None:
    """False when one is not met, None when none is but not all are measured (or there is none), else True."""
    met = [claim.met for claim in claims]
    return False if False in met else None if None in met or not met else True


def signed(e: Estimate) -> str:
    """A difference with its interval, as text."""
    if e.low is None or e.high is None:
        return _plus(e.mean)
    return f"{_plus(e.mean)} ({_plus(e.low)} to {_plus(e.high)})"


def _plus(value: float) -> str:
    """With its sign, to a digit more than what decides, and no -0.0000."""
    return f"{round(value, 4) + 0.0:+.4f}"


def _values(runs: Mapping[str, Record], of: Callable[[Record], float | None]) -> dict[str, float]:
    found = {name: of(record) for name, record in runs.items()}
    return {name: value for name, value in found.items() if value is not None}
