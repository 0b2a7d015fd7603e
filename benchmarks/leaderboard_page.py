"""The leaderboard's page: what is compared, what came out in words and figures computed from the runs, then the tables.

Nothing here is typed in after a result: every verdict is a `Claim` of `benchmarks.standing`, and what is not measured says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from assets import lake
from benchmarks import leaderboard_plots, leaderboard_sections, measuring, plan, search, standing
from benchmarks.runs import MODEL, Record
from benchmarks.standing import Board, Cell, Claim
from benchmarks.worlds import World
from models import names
from models.contract import load

Lines = list[str]


def write(records: Sequence[Record], trials: Sequence[Record], *, page: Path, summary: Path) -> None:
    """Write page, plots (beside it) and summary from the runs on file that today's plan would make."""
    current = plan.up_to_date(records, trials)
    small = asdict(plan.worlds(seeds=plan.SEEDS[:1])[0])
    boards = {conflict: standing.cell(current, conflict, small) for conflict in plan.CELLS}
    large = standing.cell(current, (plan.LARGE.selection_conflict, plan.LARGE.sign_conflict), asdict(plan.LARGE))
    logs = _logs(current)
    tasks = list(load("simulated").tasks)
    claims = {
        f"In every kind of world and on every task, DTRN is not below the best of {', '.join(plan.FAMILY)}": standing.not_below(
            boards, tasks
        ),
        f"On the starved task ({standing.STARVED}) under selection conflict, DTRN is above DMT by {standing.ENOUGH_GAIN:g} "
        "or more": standing.above_dmt(boards),
        f"At 2 M samples DTRN has {standing.ENOUGH_SHARE:.0%} of the reachable gain on every task": standing.reached(
            large, tasks
        ),
    }
    shares = leaderboard_plots.shares(boards, page.parent / "leaderboard-shares.svg", tasks)
    angles = leaderboard_plots.angles(standing.angles(current), page.parent / "leaderboard-gradients.svg")
    sections = leaderboard_sections
    text = [
        *_opening(records, current, boards),
        *_answer(claims, boards, tasks, logs),
        *sections.worlds(boards, tasks, shares),
        *sections.large(large, tasks),
        *sections.real(logs),
        *sections.ablations(boards[plan.ABLATED], tasks),
        *sections.transfer(boards, tasks, standing.angles(current), angles),
        *_how(current, trials),
    ]
    lake.write_text(page, "\n".join(text) + "\n")
    lake.write_json(summary, _summary(claims, boards, large, logs, current))


def _logs(records: Sequence[Record]) -> dict[str, dict[str, Board]]:
    """Real logs with a run: data set → judged day → its runs."""
    seen = sorted({(r["where"]["dataset"], r["where"]["day"]) for r in records if r["where"]["world"] is None})
    out: dict[str, dict[str, Board]] = {}
    for dataset, day in seen:
        out.setdefault(dataset, {})[day] = standing.of_log(records, dataset, day)
    return out


def _opening(records: Sequence[Record], current: Sequence[Record], boards: Mapping[Cell, Board]) -> Lines:
    counts = {standing.named_cell(c): len(b.runs(plan.OURS)) for c, b in boards.items()}
    left = len(records) - len(current)
    return [
        "# Leaderboard",
        "",
        "Written by `make leaderboard` from `benchmarks/results/leaderboard/`; not to be edited by hand.",
        "",
        "## What is compared",
        "",
        "Every model learns from the same days of the same log and is scored on the day after. A *simulated world* is a "
        "made-up shop (`./dtrn simulate`) that keeps the probability which each label was drawn with. So the best AUC that any "
        "model could reach is known, and an AUC can be taken against the probabilities themselves, which leaves out the luck "
        "of the draw (`benchmarks/oracle.py`). There are four kinds of worlds: the tasks agree, or they need different parts "
        "of a history (*selection* conflict 1), or they want opposite signs of one signal (*sign* conflict 1), or both.",
        "",
        "*Share*: (AUC − AUC of item popularity) ÷ (AUC of the true probabilities − AUC of item popularity), all without label "
        "noise. 0 is what each item's own rate of the task gives, 1 what knowing everything gives.",
        "",
        "Intervals are 95 %, each by itself, whatever their number. In simulated worlds they are Student's over the worlds, "
        f"paired where two models are compared, all trained with seed {plan.TERMS['seed']}; on a real log they come from "
        "resampling that day's users and say nothing of other training seeds. **Bold** is a difference in all worlds whose "
        "interval leaves out 0. *Not below by more than the interval* also holds where an interval is wide; its ends stand "
        "beside each verdict. The best of the family is the one of best mean here, picked after the result, which is hard on "
        "DTRN.",
        "",
        "Seconds are of training, the median, by the clock on the wall and in brackets by the processor's, of the runs on the "
        "processor that most of a table's were made on; runs shared the machine.",
        "",
        "No result in these worlds was seen while models, their inputs and their settings were worked on: that was done in "
        f"worlds of other seeds (docs/log.md). Of the real logs, {_seen_days()} were seen then, so what stands here of those "
        "days says nothing of days to come.",
        "",
        "Every neural model is told, beside its embeddings, how often and how lately a history has the candidate and its "
        "features (*matches*), and how earlier samples of the user and of the item went (*statistics*); only rows named "
        "*-plain* are the papers' models with the papers' inputs. More of each: docs/models.md.",
        "",
        *_legend(current),
        "",
        f"Worlds in which DTRN has run: {'; '.join(f'{name}: {n} of {len(plan.SEEDS)}' for name, n in counts.items())}. "
        f"{len(current)} runs stand here"
        + (f"; {left} more are on file under settings that are no longer the plan's, and are left out." if left else "."),
        "",
    ]


def _legend(records: Sequence[Record]) -> Lines:
    """What the models on file are, in a line each."""
    there = {r["model"] for r in records}
    rows = [f"| {model} | {plan.ABOUT[model]} |" for model in plan.MODELS if model in there]
    return ["| model | what it is |", "| --- | --- |", *rows] if rows else ["No model has run yet."]


def _seen_days() -> str:
    return "; ".join(f"{log} {', '.join(days)}" for log, days in plan.SEEN_DAYS.items())


def _answer(
    claims: Mapping[str, Sequence[Claim]],
    worlds: Mapping[Cell, Board],
    tasks: Sequence[str],
    logs: Mapping[str, Mapping[str, Board]],
) -> Lines:
    out = ["## The answer", ""]
    for wanted, parts in claims.items():
        out += [
            f"**{wanted}: {leaderboard_sections.verdict(standing.altogether(parts))}.** {_counted(parts)}",
            "",
            "| wanted | measured | so? |",
            "| --- | --- | --- |",
            *(f"| {c.wanted} | {c.measured} | {leaderboard_sections.verdict(c.met)} |" for c in parts),
            "",
        ]
    out += [leaderboard_sections.beside_lightgbm(worlds, tasks), "", *leaderboard_sections.beside_controls(worlds, tasks)]
    for dataset, boards in logs.items():
        out += leaderboard_sections.beside_baselines(dataset, boards)
    if not logs:
        out += ["No real log has a run on file.", ""]
    return out


def _counted(parts: Sequence[Claim]) -> str:
    met, failed = sum(c.met is True for c in parts), sum(c.met is False for c in parts)
    return f"{met} of {len(parts)} hold, {failed} do not, {len(parts) - met - failed} are not measured."


def _how(records: Sequence[Record], trials: Sequence[Record]) -> Lines:
    grid = sorted({tuple(t["setting"][name] for name in search.NAMES) for t in trials})
    rows = []
    for model in standing.ordered(r["model"] for r in records):
        said, by = " | ".join(leaderboard_sections.NONE for _ in search.NAMES), "fixed"
        if model not in plan.BASELINES:
            chosen, own = plan.setting(names.canonical(model), trials)
            said = " | ".join(f"{chosen[name]:g}" for name in search.NAMES)
            by = "its own search" if own else "best for all searched models together"
        made = [r for r in records if r["model"] == model]
        codes, processors = (_tallied(found) for found in ((r["code"][:6] for r in made), (r["machine"]["cpu"] for r in made)))
        rows.append(f"| {model} | {said} | {by} | {codes} | {processors} |")
    run_on = sorted({f"{r['threads']} thread(s), device {r['device']}" for r in records})
    used = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in plan.TERMS.items())
    return [
        "## How it was done",
        "",
        f"Budgets of neural models are equal: {used}; early stopping on the last training day; the judged day is read once, "
        "after training. Learning rate, decay of the id embeddings and their start were searched over "
        f"{len(grid)} settings ({'; '.join(', '.join(f'{v:g}' for v in s) for s in grid)}) on worlds of other seeds and on "
        "earlier days of the real log, scored on early-stopping days (`benchmarks/results/search.json`); those worlds are of "
        "the small ones' size and have one conflict each. Each model takes the setting of best mean rank among those that "
        "every searched model has tried. LightGBM and popularity have one setting each, not searched. The daily job's default "
        f"is at most {load('simulated').training.epochs} epochs.",
        "",
        f"| model | {' | '.join(name.replace('_', ' ') for name in search.NAMES)} | chosen by | runs by code | by processor |",
        "| --- " * 7 + "|",
        *rows,
        "",
        f"A small world has {World.users:,} users, {World.items:,} items and about {World.impressions:,} impressions a day; "
        f"seeds {', '.join(map(str, plan.SEEDS))}. The large one has {plan.LARGE.users:,} users, {plan.LARGE.items:,} items "
        f"and about {plan.LARGE.impressions:,} impressions a day. Ten days are learned from; the last stops early.",
        "",
        f"Today's code is {measuring.code()[:6]}; what was held of code between that of these runs and it says docs/log.md "
        "(*Runs of other code*), and `--same-code` makes them again. "
        f"{'; '.join(run_on) or 'No run yet'}.",
    ]


def _tallied(names_: Iterable[str]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in Counter(names_).most_common())


def _summary(
    claims: Mapping[str, Sequence[Claim]],
    boards: Mapping[Cell, Board],
    large: Board,
    logs: Mapping[str, Mapping[str, Board]],
    records: Sequence[Record],
) -> dict[str, Any]:
    def figures(board: Board, variants: Sequence[tuple[str, str]]) -> dict[str, Any]:
        return {
            f"{model}, {variant}" if variant else model: {
                "worlds": len(runs := board.runs(model, variant)),
                "parameters": next((r.get("parameters") for r in runs.values()), None),
                "seconds": float(np.mean([r["seconds"] for r in runs.values()])),
                "processor_seconds": float(np.mean([r["processor_seconds"] for r in runs.values()])),
                "tasks": {task: _figures(board, model, variant, task) for task in board.tasks},
            }
            for model, variant in variants
        }

    def every(board: Board) -> list[tuple[str, str]]:
        return [(m, "") for m in board.models] + [(plan.OURS, v) for v in board.variants]

    return {
        "what": "make leaderboard",
        "runs": sum(r["kind"] == MODEL for r in records),
        "claims": {
            wanted: {"met": standing.altogether(parts), "parts": [asdict(c) for c in parts]} for wanted, parts in claims.items()
        },
        "worlds": {standing.named_cell(c): figures(board, every(board)) for c, board in boards.items()},
        "large": figures(large, every(large)),
        "logs": {name: {day: figures(b, every(b)) for day, b in days.items()} for name, days in logs.items()},
        "gradients": {model: run["angles"] for model, run in standing.angles(records).items()},
    }


def _figures(board: Board, model: str, variant: str, task: str) -> dict[str, Any]:
    found = {
        "share": board.share(model, task, variant),
        "auc_without_label_noise": board.soft(model, task, variant),
        "auc": board.sampled(model, task, variant),
    }
    means = {name: standing.estimate(list(values.values())) for name, values in found.items()}
    return {name: None if e is None else {"mean": e.mean, "low": e.low, "high": e.high} for name, e in means.items()}
