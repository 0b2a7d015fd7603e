"""The tables of the leaderboard's page, in markdown, one function a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import gradients, plan, standing
from benchmarks.runs import Record
from benchmarks.standing import Board, Cell, Estimate
from models import names
from models.judgement import MIN_EACH, MIN_USERS

NONE = "–"
COST = "parameters (beside embeddings) | seconds (processor)"
Lines = list[str]


def verdict(met: bool | None) -> str:
    return {True: "yes", False: "no", None: "not measured"}[met]


def worlds(boards: Mapping[Cell, Board], tasks: Sequence[str], picture: str | None) -> Lines:
    """A table a kind of world: shares, AUCs and cost by model; and DTRN less each other model."""
    out = ["## Simulated worlds, 250 k samples", ""]
    if picture:
        out += [f"![Share of the reachable gain by model, task and kind of world, with intervals]({picture})", ""]
    for conflict, board in boards.items():
        out += [f"### {standing.named_cell(conflict)}", ""]
        if not board.models:
            out += ["Not measured yet.", ""]
            continue
        out += _standings(board, tasks, [(m, "") for m in board.models])
        others = [(m, "") for m in board.models if m != plan.OURS]
        out += [
            "DTRN less each other model, AUC without label noise, paired over worlds (bold: the interval leaves out 0):",
            "",
        ]
        out += _differences(board, tasks, others)
    return out


def large(board: Board, tasks: Sequence[str]) -> Lines:
    out = ["## One world, 2 M samples", ""]
    return (
        [*out, *_standings(board, tasks, [(m, "") for m in board.models])] if board.models else [*out, "Not measured yet.", ""]
    )


def _standings(board: Board, tasks: Sequence[str], rows: Sequence[tuple[str, str]]) -> Lines:
    """By model: share, AUC without label noise (and against drawn labels), parameters, seconds."""
    head = [
        *(f"{task}: share | {task}: AUC (drawn labels)" for task in tasks),
        "parameters (beside embeddings)",
        "seconds",
        "worlds",
    ]
    out = [f"| model | {' | '.join(head)} |", "| --- " * (4 + 2 * len(tasks)) + "|"]
    for model, variant in rows:
        runs = list(board.runs(model, variant).values())
        cells = []
        for task in tasks:
            share, soft, drawn = (
                standing.estimate(list(of(model, task, variant).values())) for of in (board.share, board.soft, board.sampled)
            )
            cells += [_within(share, 2), f"{_mean(soft)} ({_mean(drawn)})"]
        out.append(f"| {variant or model} | {' | '.join(cells)} | {_cost(runs)} | {len(runs)} |")
    best = [standing.estimate(list(board.best(task).values())) for task in tasks]
    out.append(f"| *true probabilities* | {' | '.join(f'1 | {_mean(e)}' for e in best)} | {NONE} | {NONE} | {NONE} |")
    return [*out, ""]


def _cost(runs: Sequence[Record]) -> str:
    """Parameters and mean training seconds; ≥ where a run was resumed, since only its last part was timed."""
    first = runs[0]
    trees = f"{sum(first['trees'].values())} trees" if "trees" in first else NONE
    size = f"{first['parameters']:,} ({first['parameters_beside_embeddings']:,})" if "parameters" in first else trees
    wall, busy = (float(np.mean([r[name] for r in runs])) for name in ("seconds", "processor_seconds"))
    return f"{size} | {'≥ ' if any(r.get('resumed') for r in runs) else ''}{wall:,.0f} ({busy:,.0f})"


def _differences(board: Board, tasks: Sequence[str], others: Sequence[tuple[str, str]]) -> Lines:
    out = [f"| DTRN less | {' | '.join(tasks)} |", "| --- " * (1 + len(tasks)) + "|"]
    for other in others:
        found = [board.difference((plan.OURS, ""), other, task) for task in tasks]
        out.append(f"| {other[1] or other[0]} | {' | '.join(_bold(e) for e in found)} |")
    return [*out, ""]


def real(logs: Mapping[str, Mapping[str, Board]]) -> Lines:
    """A table a day of a real log: AUCs, and DTRN less each other model with what of it is noise."""
    out = ["## Real logs", ""]
    if not logs:
        return [
            *out,
            "Not measured yet. With samples of a log at hand (`./dtrn backfill`), `make leaderboard DATASET=taobao` adds it.",
            "",
        ]
    out += [
        "The best reachable AUC is not known here. In brackets: DTRN less that model with its interval over resampled users; "
        f"*noise* where 0 is inside. A task with fewer than {MIN_EACH} positives, or from fewer than {MIN_USERS} users, is not "
        "judged.",
        "",
    ]
    for dataset, days in logs.items():
        for day, board in days.items():
            tasks = board.tasks
            said = []
            for task in tasks:
                told = next(iter(next(iter(board.by_model.values())).values()))["tasks"][task]
                said.append(f"{task} {told['positives']:,} positives from {told['users_with_positives']:,} users")
            out += [f"### {dataset}, {day}", "", f"{'; '.join(said)}.", ""]
            out += [
                f"| model | {' | '.join(tasks)} | parameters (beside embeddings) | seconds |",
                "| --- " * (3 + len(tasks)) + "|",
            ]
            ours = _only(board, plan.OURS)
            for model in board.models:
                run = _only(board, model)
                assert run is not None
                cells = [_beside(run, ours if model != plan.OURS else None, task) for task in tasks]
                out.append(f"| {model} | {' | '.join(cells)} | {_cost([run])} |")
            out.append("")
            if board.variants:
                out += ["Ablations of DTRN; in brackets DTRN as it is less that:", ""]
                out += [f"| DTRN with | {' | '.join(tasks)} | {COST} |", "| --- " * (3 + len(tasks)) + "|"]
                for variant in board.variants:
                    (run,) = board.runs(plan.OURS, variant).values()
                    out.append(f"| {variant} | {' | '.join(_beside(run, ours, task) for task in tasks)} | {_cost([run])} |")
                out.append("")
    return out


def _only(board: Board, model: str) -> Record | None:
    """The one run of a model on a day of a real log."""
    return next(iter(board.runs(model).values()), None)


def _beside(run: Record, ours: Record | None, task: str) -> str:
    measured = run["tasks"][task]
    auc = NONE if measured["auc"] is None else f"{measured['auc']:.4f}"
    if ours is None:
        return auc
    if not standing.judged(measured):
        return f"{auc} (not judged)"
    d = standing.resampled(ours, run, task)
    return auc if d is None else f"{auc} ({standing.signed(d)}{', noise' if d.noise else ''})"


def beside_lightgbm(boards: Mapping[Cell, Board], tasks: Sequence[str]) -> str:
    """In words: in which kinds of worlds, and on which tasks, DTRN is above or below LightGBM."""
    above, below, open_ = list[str](), list[str](), list[str]()
    for conflict, board in boards.items():
        for task in tasks:
            d = board.difference((plan.OURS, ""), ("lightgbm", ""), task)
            if d is not None and d.n > 1:
                found = open_ if d.noise else above if d.mean > 0 else below
                found.append(f"{task} at {standing.named_cell(conflict)}")
    if not (above or below or open_):
        return "**Against LightGBM in the simulated worlds**: not measured on two worlds yet."
    said = [f"{word} on {', '.join(found)}" for word, found in (("above", above), ("below", below)) if found]
    said += [f"no clear difference on {', '.join(open_)}"] if open_ else []
    told = "**Against LightGBM on counts, recencies and the same statistics, DTRN in the simulated worlds is** "
    return f"{told}{'; '.join(said)}."


def beside_baselines(dataset: str, days: Mapping[str, Board]) -> str:
    """In words: on how many days and tasks of a real log the neural models are above and below popularity and LightGBM."""
    said = []
    for baseline in plan.BASELINES:
        counts: dict[str, list[int]] = {}
        lost = []
        for day, board in days.items():
            base = _only(board, baseline)
            for model in board.models:
                run = _only(board, model)
                if base is None or run is None or model in plan.BASELINES:
                    continue
                for task in board.tasks:
                    d = standing.resampled(run, base, task) if standing.judged(run["tasks"][task]) else None
                    if d is None:
                        continue
                    above, below = not d.noise and d.mean > 0, not d.noise and d.mean < 0
                    told = counts.setdefault(model, [0, 0, 0])
                    counts[model] = [told[0] + above, told[1] + below, told[2] + 1]
                    if model == plan.OURS and not above:
                        lost.append(f"{task} on {day} ({standing.signed(d)})")
        if not counts:
            said.append(f"No neural model can be held against {baseline}.")
            continue
        each = ", ".join(f"{model} above on {up}, below on {down} of {of}" for model, (up, down, of) in counts.items())
        said.append(f"Against {baseline}, over the days and tasks that can be judged: {each}.")
        if lost:
            said.append(f"DTRN does not beat {baseline} on {', '.join(lost)}.")
    return f"**{dataset}**: {' '.join(said)}"


def ablations(board: Board, tasks: Sequence[str]) -> Lines:
    """DTRN with one thing changed, in the worlds of one kind."""
    out = ["## Ablations of DTRN", ""]
    relatives = [model for model in board.models if model != plan.OURS and _parts(board, model) == _parts(board, plan.OURS)]
    rows = [(plan.OURS, ""), *((model, "") for model in relatives), *((plan.OURS, v) for v in board.variants)]
    if len(rows) == 1 or not board.runs(plan.OURS):
        return [*out, "Not measured yet.", ""]
    out += [f"In the worlds of {standing.named_cell(plan.ABLATED)}.", "", *_standings(board, tasks, rows)]
    return [*out, "DTRN as it is less the changed one:", "", *_differences(board, tasks, rows[1:])]


def _parts(board: Board, model: str) -> tuple[str, str] | None:
    """(file of the bottom, head) of a model; None of a baseline."""
    recipe = next((run["recipe"] for run in board.runs(model).values()), None)
    return (recipe["bottom"], recipe["head"]) if recipe else None


def transfer(boards: Mapping[Cell, Board], tasks: Sequence[str], picture: str | None) -> Lines:
    """The angle between the tasks' gradients, and each multi-task model against its own single-task models."""
    out = ["## Negative transfer", ""]
    if picture:
        out += [
            f"![Cosine of each two tasks' gradients on the shared parameters over training, by model]({picture})",
            "",
            f"Cosine of two tasks' gradients over the parameters that both reach, mean of {gradients.BATCHES} batches, in one "
            f"world of {standing.named_cell(plan.ABLATED)}. Below 0 a step for one task is a step against the other.",
            "",
        ]
    else:
        out += ["The angles between the tasks' gradients are not measured yet.", ""]
    out += [
        "Each multi-task model less single-task models of the same bottom (a whole network per task, embeddings included), AUC "
        "without label noise, paired over worlds. A whole interval below 0 is negative transfer: alone is better. The "
        "single-task models of one run share no weight, but the epoch at which all of them stop; and their statistics tell "
        "them the other tasks' rates.",
        "",
        f"| model less its single-task models | {' | '.join(tasks)} |",
        "| --- " * (1 + len(tasks)) + "|",
    ]
    count = 0
    for conflict, board in boards.items():
        for model in board.models:
            alone = own_single_task(model)
            if alone is None or alone == model or not board.runs(alone):
                continue
            found = [board.difference((model, ""), (alone, ""), task) for task in tasks]
            out.append(f"| {standing.named_cell(conflict)}: {model} − {alone} | {' | '.join(_bold(e) for e in found)} |")
            count += 1
    return [*(out if count else out[:-4]), *([] if count else ["No pair of them is measured yet."]), ""]


def own_single_task(model: str) -> str | None:
    """The name of the single-task models with the bottom of `model`; None of a baseline."""
    return None if model in plan.BASELINES else names.canonical(f"{names.split(model)[0]}+single-task")


def _mean(e: Estimate | None) -> str:
    return NONE if e is None else f"{e.mean:.4f}"


def _within(e: Estimate | None, digits: int) -> str:
    if e is None:
        return NONE
    return f"{e.mean:.{digits}f}" + ("" if e.half is None else f" ± {e.half:.{digits}f}")


def _bold(e: Estimate | None) -> str:
    if e is None:
        return NONE
    return standing.signed(e) if e.noise else f"**{standing.signed(e)}**"
