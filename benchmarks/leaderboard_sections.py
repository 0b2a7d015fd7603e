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
        out += ["DTRN less each other model, AUC without label noise, paired over worlds:", ""]
        out += _differences(board, tasks, others)
    return out


def large(board: Board, tasks: Sequence[str]) -> Lines:
    conflict = (plan.LARGE.selection_conflict, plan.LARGE.sign_conflict)
    out = [f"## One world of {standing.named_cell(conflict)}, 2 M samples", ""]
    return (
        [*out, *_standings(board, tasks, [(m, "") for m in board.models])] if board.models else [*out, "Not measured yet.", ""]
    )


def _standings(board: Board, tasks: Sequence[str], rows: Sequence[tuple[str, str]]) -> Lines:
    """By model: share, AUC without label noise (and against drawn labels), parameters, seconds; each over the same worlds."""
    worlds = board.common
    head = [*(f"{task}: share | {task}: AUC (drawn labels)" for task in tasks), COST]
    out = [f"| model | {' | '.join(head)} |", "| --- " * (3 + 2 * len(tasks)) + "|"]
    whole = [row for row in rows if board.whole(*row)]
    processor = standing.processor(run for row in whole for run in board.runs(*row).values())
    for model, variant in whole:
        cells = []
        for task in tasks:
            share, soft, drawn = (board.mean(of(model, task, variant)) for of in (board.share, board.soft, board.sampled))
            cells += [_within(share, 2), f"{_mean(soft)} ({_mean(drawn)})"]
        runs = [board.runs(model, variant)[world] for world in worlds]
        out.append(f"| {variant or model} | {' | '.join(cells)} | {_cost(runs, processor)} |")
    reachable = [[_mean(board.mean(board.best(t, against))) for against in ("best_soft", "best_auc")] for t in tasks]
    best = [f"1 | {soft} ({drawn})" for soft, drawn in reachable]
    out += [f"| *true probabilities* | {' | '.join(best)} | {NONE} | {NONE} |", ""]
    rest = [f"{row[1] or row[0]} ({len(board.runs(*row))})" for row in rows if row not in whole]
    said = f"Means over {len(worlds)} {'world' if len(worlds) == 1 else 'worlds'}."
    return [*out, said + (f" Not in all of them yet, and so not here: {', '.join(rest)}." if rest else ""), ""]


def _cost(runs: Sequence[Record], processor: str | None) -> str:
    """Parameters (or trees) and the median of the training seconds, of runs on this processor; ≥ where a run was resumed, since
    only its last part was timed."""
    first = runs[0]
    trees = f"{np.mean([sum(r['trees'].values()) for r in runs]):.0f} trees" if "trees" in first else NONE
    size = f"{first['parameters']:,} ({first['parameters_beside_embeddings']:,})" if "parameters" in first else trees
    timed = [r for r in runs if r["machine"]["cpu"] == processor]
    if not timed:
        return f"{size} | {NONE}"
    wall, busy = (float(np.median([r[name] for r in timed])) for name in ("seconds", "processor_seconds"))
    return f"{size} | {'≥ ' if any(r.get('resumed') for r in timed) else ''}{wall:,.0f} ({busy:,.0f})"


def _differences(board: Board, tasks: Sequence[str], others: Sequence[tuple[str, str]]) -> Lines:
    """Bold where all worlds are there and the interval leaves out 0: over two, an interval says next to nothing."""
    out = [f"| DTRN less | {' | '.join(tasks)} | worlds |", "| --- " * (2 + len(tasks)) + "|"]
    for other in others:
        found = [board.difference((plan.OURS, ""), other, task) for task in tasks]
        count = max((e.n for e in found if e), default=0)
        out.append(f"| {other[1] or other[0]} | {' | '.join(_bold(e) for e in found)} | {count} |")
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
        "The best reachable AUC is not known here. Behind a model's AUC: DTRN less that model, with its interval over "
        f"resampled users; *noise* where 0 is inside. A task with fewer than {MIN_EACH} positives, or from fewer than "
        f"{MIN_USERS} users, is not judged.",
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
                f"| model | {' | '.join(tasks)} | {COST} |",
                "| --- " * (3 + len(tasks)) + "|",
            ]
            ours = _only(board, plan.OURS)
            processor = standing.processor(run for runs in board.by_model.values() for run in runs.values())
            for model in board.models:
                run = _only(board, model)
                assert run is not None
                cells = [_beside(run, ours if model != plan.OURS else None, task) for task in tasks]
                out.append(f"| {model} | {' | '.join(cells)} | {_cost([run], processor)} |")
            out.append("")
            if board.variants:
                out += ["Ablations of DTRN; behind an AUC, DTRN as it is less that:", ""]
                out += [f"| DTRN with | {' | '.join(tasks)} | {COST} |", "| --- " * (3 + len(tasks)) + "|"]
                for variant in board.variants:
                    (run,) = board.runs(plan.OURS, variant).values()
                    cells = [_beside(run, ours, task) for task in tasks]
                    out.append(f"| {variant} | {' | '.join(cells)} | {_cost([run], processor)} |")
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
    return auc if d is None else f"{auc} · {standing.signed(d)}{' noise' if d.noise else ''}"


def beside_lightgbm(boards: Mapping[Cell, Board], tasks: Sequence[str]) -> str:
    """In words: on how many kinds of worlds and tasks DTRN is above or below LightGBM; the tables say on which."""
    found = _in_all_worlds(boards, tasks, "lightgbm")
    if not found:
        return "**Against LightGBM in the simulated worlds**: not measured in all worlds yet."
    above, below = _clearly(found)
    return (
        f"**Against LightGBM, DTRN in the simulated worlds is** clearly above on {above}, clearly below on {below} of "
        f"{len(found)} kinds of world and tasks. LightGBM reads neither ids nor sequences; it is told the same counts, "
        "recencies and statistics, and beside them how often anybody acted on the item."
    )


def _in_all_worlds(boards: Mapping[Cell, Board], tasks: Sequence[str], other: str) -> list[Estimate]:
    """DTRN less `other` for each kind of world in which both ran in all worlds, and each task."""
    pairs = (board.difference((plan.OURS, ""), (other, ""), task) for board in boards.values() for task in tasks)
    return [d for d in pairs if d is not None and d.n >= len(plan.SEEDS)]


def _clearly(found: Sequence[Estimate]) -> tuple[int, int]:
    """How many are clearly above 0, and below."""
    above, below = (sum(not d.noise and sign * d.mean > 0 for d in found) for sign in (1, -1))
    return above, below


def beside_controls(boards: Mapping[Cell, Board], tasks: Sequence[str]) -> Lines:
    """DTRN less DMT and less each control, in a row each, over kinds of world and tasks."""
    rows = []
    for other in ("dmt", *plan.CONTROLS):
        if found := _in_all_worlds(boards, tasks, other):
            least, most = (f"{end(d.mean for d in found):+.4f}" for end in (min, max))
            above, below = _clearly(found)
            rows.append(f"| {other} | {plan.ABOUT[other]} | {least} to {most} | {above} | {below} | {len(found)} |")
    if not rows:
        return []
    return [
        "**What its parts are worth**: DTRN less DMT, and less the models that tell where a difference comes from, over kinds "
        "of world, where both ran in all five, and tasks. Differences of AUC without label noise, each a mean over worlds.",
        "",
        "| DTRN less | what that is | least to largest | clearly above | clearly below | of |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
    ]


def beside_baselines(dataset: str, days: Mapping[str, Board]) -> Lines:
    """On how many days and tasks of a real log each neural model is clearly above and below each baseline."""
    models = dict.fromkeys(m for board in days.values() for m in board.models if m not in plan.BASELINES)
    counts = {model: [_beside_baseline(days, model, baseline) for baseline in plan.BASELINES] for model in models}
    out = [
        f"**{dataset}**: on how many of its days and tasks that can be judged a model is clearly above and below a baseline.",
        "",
    ]
    out += [f"| model | {' | '.join(f'above {b} | below {b}' for b in plan.BASELINES)} | of |", "| --- " * 6 + "|"]
    for model, found in counts.items():
        out.append(f"| {model} | {' | '.join(f'{up} | {down}' for up, down, _ in found)} | {max(of for *_, of in found)} |")
    missed = [
        f"{baseline} on {of - up} of {of}"
        for baseline, (up, _, of) in zip(plan.BASELINES, counts.get(plan.OURS, []), strict=False)
        if up < of
    ]
    return [*out, "", *([f"**DTRN does not beat {' nor '.join(missed)}.**", ""] if missed else [])]


def _beside_baseline(days: Mapping[str, Board], model: str, baseline: str) -> tuple[int, int, int]:
    """(days and tasks on which a model is clearly above a baseline, clearly below, all that can be judged)."""
    above = below = of = 0
    for board in days.values():
        run, base = _only(board, model), _only(board, baseline)
        if run is None or base is None:
            continue
        for task in board.tasks:
            d = standing.resampled(run, base, task) if standing.judged(run["tasks"][task]) else None
            if d is not None:
                above, below, of = above + (not d.noise and d.mean > 0), below + (not d.noise and d.mean < 0), of + 1
    return above, below, of


def ablations(board: Board, tasks: Sequence[str]) -> Lines:
    """DTRN with parts of its bottom or its inputs changed, in the worlds of one kind."""
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


def transfer(boards: Mapping[Cell, Board], tasks: Sequence[str], angles: Mapping[str, Record], picture: str | None) -> Lines:
    """The angle between the tasks' gradients, and each multi-task model against its own single-task models."""
    out = ["## Negative transfer", ""]
    if picture:
        out += [
            f"![Cosine of each two tasks' gradients on the shared parameters over training, by model]({picture})",
            "",
            f"Cosine of two tasks' gradients over the parameters that both reach, mean of {gradients.BATCHES} batches, in the "
            f"world of {standing.named_cell(plan.ABLATED)} and seed {plan.SEEDS[0]}, {plan.ANGLE_EPOCHS} epochs, one training "
            "seed. Below 0 a step for one task is a step against the other. Mean over training, and in how many of the looks "
            "it is below 0:",
            "",
            *_angles(angles),
        ]
    else:
        out += ["The angles between the tasks' gradients are not measured yet.", ""]
    out += [
        "Each multi-task model less single-task models of the same bottom (a whole network per task, embeddings included), AUC "
        "without label noise, paired over worlds. A whole interval below 0 is negative transfer: alone is better. The "
        "single-task models of one run share no weight, but the epoch at which all of them stop; and their statistics tell "
        "them the other tasks' rates.",
        "",
    ]
    rows, alone_missing = [], dict[str, None]()
    for conflict, board in boards.items():
        for model in board.models:
            alone = own_single_task(model)
            if alone is None or alone == model:
                continue
            found = [board.difference((model, ""), (alone, ""), task) for task in tasks]
            if not any(found):
                alone_missing[model] = None
                continue
            count = max(e.n for e in found if e)
            cells = " | ".join(_bold(e) for e in found)
            rows.append(f"| {standing.named_cell(conflict)}: {model} − {alone} | {cells} | {count} |")
    if rows:
        out += [
            f"| model less its single-task models | {' | '.join(tasks)} | worlds |",
            "| --- " * (2 + len(tasks)) + "|",
            *rows,
        ]
    else:
        out += ["No pair of them is measured yet."]
    out.append("")
    if rows and alone_missing:
        out += [
            f"Single-task models of the same bottom did not run in every kind of world for: {', '.join(alone_missing)}.",
            "",
        ]
    return out


def _angles(runs: Mapping[str, Record]) -> Lines:
    """By model and pair of tasks: the mean cosine over training, and how many looks are below 0."""
    told = {model: runs[model]["angles"]["cosines"] for model in plan.ANGLED if model in runs}
    pairs = list(dict.fromkeys(pair for cosines in told.values() for pair in cosines))
    out = [f"| model | {' | '.join(pairs)} |", "| --- " * (1 + len(pairs)) + "|"]
    for model, cosines in told.items():
        cells = []
        for pair in pairs:
            seen = [c for c in cosines.get(pair, []) if c is not None]
            cells.append(f"{np.mean(seen):+.2f}, {sum(c < 0 for c in seen)} of {len(seen)}" if seen else NONE)
        out.append(f"| {model} | {' | '.join(cells)} |")
    return [*out, ""]


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
    return standing.signed(e) if e.noise or e.n < len(plan.SEEDS) else f"**{standing.signed(e)}**"
