"""What the leaderboard compares: worlds, models, ablations and the settings that each model trains with; a model is added by
its name in `MODELS`. Worlds, budgets and claims were written before a run of them was made: these worlds took the place of
others, in which models and their inputs were still worked on (docs/log.md).

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
ABOUT = {
    "popularity": "each item's smoothed rate of the task; reads nothing of the user",
    "lightgbm": "gradient-boosted trees, one model a task, on counts, recencies, statistics and side features",
    "single-task": "a network a task over mean-pooled histories, nothing shared",
    "shared-bottom": "one network for all tasks over mean-pooled histories",
    "mmoe": "shared experts over mean-pooled histories, a gate a task",
    "ple": "own and shared experts over mean-pooled histories, two layers",
    "dmt": "a Transformer an action that the tasks share, and MMoE",
    "dtrn": "one Transformer conditioned on task and action (TIM), fields rescaled per task (TRM), and MMoE",
    "dmt-x3": "DMT with three Transformers an action: is it capacity?",
    "dmt-senet": "DMT and one rescaling of the fields for all tasks",
    "dmt-trm": "DMT and DTRN's rescaling per task: what does TRM give?",
    "dtrn-tim": "DTRN without TRM: TIM alone",
    "dtrn-trm": "DTRN without TIM: TRM alone",
    "dtrn-plain": "DTRN told of neither matches nor statistics: the paper's",
    "dmt-plain": "DMT told of neither: the paper's",
    "pooled-plain": "MMoE told of neither",
    "dmt+single-task": "a DMT a task, nothing shared",
    "dtrn+single-task": "a DTRN a task, nothing shared",
    "dtrn-shared-trm": "DTRN whose rescaling is the same for all tasks",
    "dtrn-task-only": "DTRN whose Transformer is conditioned on the task alone",
    "dtrn-action-only": "DTRN whose Transformer is conditioned on the action alone",
    "dtrn-separate": "DTRN with a Transformer for every task and action in place of the hypernetwork",
    "dtrn+slim": "DTRN under our slim head, a quarter of MMoE's products",
    "stem": "STEM: shared and per-task tables, gradients stopped into other tasks' experts",
    "pepnet": "PEPNet's gates on embeddings and on hidden units",
}
"""What each is, in a line."""

CONTROLS = tuple(name for name in ABOUT if name not in (*BASELINES, *FAMILY, OURS))
"""What tells where a difference comes from (docs/models.md); a model's own single-task models have its bottom each."""

MODELS = (*BASELINES, *FAMILY, OURS, *CONTROLS)

CELLS: tuple[tuple[float, float], ...] = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(selection conflict, sign conflict) of the worlds."""

SEEDS = (301, 302, 303, 304, 305)

SEEN_DAYS = {"taobao": ("2017-11-30", "2017-12-01", "2017-12-02")}
"""Judged days of real logs whose results were read while models were worked on, or which some choice stopped early on."""

LARGE = World(seed=306, sign_conflict=1, selection_conflict=1, users=8 * World.users, impressions=8 * World.impressions)
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
    return [World(seed, sign, selection) for seed in seeds for selection, sign in cells]


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
