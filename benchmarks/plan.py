"""What the leaderboard compares: worlds, models, ablations and the settings that each model trains with; a model is added by
its name in `MODELS`. Worlds, budgets and claims were written before a run of them was made, but for what docs/log.md says of
the worlds in `SEEN`; the mean over epochs and the models told of statistics came after those.

Settings: a model takes the one of best mean rank in its own search (`benchmarks.search`, on worlds of other seeds and on
earlier days), among those that every searched model has tried on every log, so that none is searched longer than another.
A model that was not searched takes the one that is best for all searched models together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from benchmarks import search
from benchmarks.runs import GRADIENTS, Record, Run, Variant, Where, found, same_recipe
from benchmarks.worlds import SIMULATED, World
from models import names
from models.config import named
from models.contract import load

BASELINES = ("popularity", "lightgbm")
FAMILY = ("single-task", "shared-bottom", "mmoe", "ple", "dmt")
"""What DTRN must not be below."""

OURS = "dtrn"
CONTROLS: tuple[str, ...] = (
    "dmt-x3", "dmt-senet", "dmt-trm", "dtrn-tim", "dtrn-trm", "dtrn-plain", "dmt-plain", "pooled-plain", "dmt+single-task",
    "dtrn+single-task", "dtrn-shared-trm", "dtrn-task-only", "dtrn-action-only", "dtrn-separate", "dtrn+slim", "stem", "pepnet",
)  # fmt: skip
"""What tells where a difference comes from (docs/models.md); a model's own single-task models have its bottom each."""

MODELS = (*BASELINES, *FAMILY, OURS, *CONTROLS)

CELLS: tuple[tuple[float, float], ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(selection conflict, sign conflict) of the worlds."""

SEEDS = (201, 202, 203, 204, 205)
SEEN = (201,)
"""Of them, those whose results were read while the models were still worked on (docs/log.md)."""

SEEN_DAYS = {"taobao": ("2017-11-30", "2017-12-01", "2017-12-02")}
"""Judged days of real logs of which the same is true, or which some choice stopped early on."""

USERS, ITEMS, IMPRESSIONS = 4_350, 8_700, 29_000
"""Of a world: as many impressions a user and an item as by the simulator's defaults; nine days of them are over 250,000."""

LARGE = World(seed=206, sign_conflict=1, selection_conflict=1, users=8 * USERS, items=ITEMS, impressions=8 * IMPRESSIONS)
"""Eight times the users before the same shelf: 2 M samples."""

ABLATED: tuple[float, float] = (1, 1)
"""The cell whose worlds the ablations learn from."""

LONGEST = (2, 5, 10)
REDUCTIONS = (1, 2, 8)
ANGLED = ("shared-bottom", "mmoe", OURS)
"""The models whose tasks' gradients are held against each other."""

TERMS: Record = {"epochs": 20, "patience": 3, "seed": 1, "batch_samples": 2048, "width": 16, "averaging": 0.5}
ANGLE_EPOCHS = 6


def last_day(dataset: str = SIMULATED) -> str:
    """The last day of a closed calendar, on which a simulated world is scored."""
    return load(dataset).days()[-1]


def worlds(cells: Sequence[tuple[float, float]] = CELLS, seeds: Sequence[int] = SEEDS) -> list[World]:
    """A world for each seed and cell, all cells of one seed before the next, so that what is cut off is even."""
    sizes = {"users": USERS, "items": ITEMS, "impressions": IMPRESSIONS}
    return [
        World(seed=seed, sign_conflict=sign, selection_conflict=selection, **sizes)
        for seed in seeds
        for selection, sign in cells
    ]


def of_world(world: World) -> Where:
    return Where(SIMULATED, last_day(), world)


def searched(trials: Sequence[Record]) -> list[Record]:
    """The trials that settings come of: of DTRN and of what it must not be below, by the search's own terms.

    One of another model, or of fewer epochs, must not change what all the others train with.
    """
    return [trial for trial in trials if trial["model"] in (*FAMILY, OURS) and trial["terms"] == search.budget()]


def setting(model: str, trials: Sequence[Record]) -> tuple[search.Setting, bool]:
    """(the setting of a model, whether it comes of the model's own search); see the top.

    Raises ValueError when there is no setting that all have tried.
    """
    tried: dict[tuple[str, str], set[str]] = {}
    for trial in trials:
        tried.setdefault((trial["log"], trial["model"]), set()).add(json.dumps(trial["setting"]))
    common = set.intersection(*tried.values()) if tried else set()
    if not common:
        raise ValueError("no setting was tried by every model on every log of the search; run `make search` first")
    usable = [t for t in trials if json.dumps(t["setting"]) in common]
    own = [t for t in usable if t["model"] == model]
    return search.mean_ranks(own or usable)[0][0], bool(own)


def run(where: Where, model: str, trials: Sequence[Record], variant: Variant = Variant(), terms: Record = TERMS) -> Run:  # noqa: B008
    """The run of a model by its name; a baseline has no recipe, and of the terms only the seed."""
    if model in BASELINES:
        return Run(where, model, None, {"seed": terms["seed"]}, variant)
    name = names.canonical(model)
    chosen, _ = setting(name, trials)
    parts = {"width": terms["width"], "embedding_std": chosen["embedding_std"], **variant.recipe}
    learned = {name: chosen[name] for name in ("learning_rate", "embedding_decay")}
    return Run(where, name, replace(named(name), **parts), {**terms, **learned}, variant)


def variants(actions: Sequence[str]) -> list[Variant]:
    """The ablations of DTRN on a log with these actions: one change each."""
    return [
        *(Variant(f"histories of at most {n}", longest=n) for n in LONGEST),
        *(Variant(f"reduction r = {r}", recipe={"reduction": r}) for r in REDUCTIONS),
        *(Variant(f"without {action}", without=action) for action in actions),
    ]


def angled(where: Where, trials: Sequence[Record], terms: Record = TERMS) -> list[Run]:
    """The runs that look at the tasks' gradients."""
    fixed = {name: value for name, value in terms.items() if name != "patience"} | {"epochs": ANGLE_EPOCHS}
    return [replace(run(where, model, trials, terms=fixed), kind=GRADIENTS) for model in ANGLED]


def remade(record: Record, trials: Sequence[Record]) -> Run | None:
    """The run that this plan makes today of what a record is of; None where it makes none."""
    told = record["where"]
    where = Where(told["dataset"], told["day"], World(**told["world"]) if told["world"] else None)
    known = {variant.name: variant for variant in [Variant(), *variants(list(record["data"]["lengths"]))]}
    if record["variant"] not in known:
        return None
    if record["kind"] == GRADIENTS:
        return next((r for r in angled(where, trials) if r.model == record["model"]), None)
    try:
        return run(where, record["model"], trials, known[record["variant"]])
    except ValueError:  # a model whose name is none any more
        return None


def up_to_date(records: Sequence[Record], trials: Sequence[Record]) -> list[Record]:
    """The runs on file that this plan would make today, oldest first; those of other settings are left out."""
    contract = load(SIMULATED)

    def stands(record: Record) -> bool:
        wanted = remade(record, trials)
        if wanted is None:
            return False
        if wanted.where.world is None:  # its contract may be a file that is not at hand: what it held is taken as it was
            asked = wanted.recipe.to_json() if wanted.recipe else None
            return same_recipe(record["recipe"], asked) and record["terms"] == wanted.terms
        return found([record], wanted.key(contract)) is not None

    return [record for record in records if stands(record)]
