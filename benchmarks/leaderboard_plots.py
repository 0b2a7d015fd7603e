"""The leaderboard's plots, as SVG whose bytes depend on the figures alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from assets import lake
from benchmarks import plan
from benchmarks.runs import Record
from benchmarks.standing import Board, Cell, named_cell

OURS, OTHERS = "#c2410c", "#475569"


def shares(boards: Mapping[Cell, Board], path: Path, tasks: Sequence[str]) -> str | None:
    """The share of the reachable gain by model: a row of panels a kind of world, a panel a task. None of no share.

    Only of models that ran wherever DTRN did: a mean over two worlds is no neighbour of one over five. Each panel has a scale
    of its own: on one from 0 to 1 all models would be one point.
    """
    drawn = {cell: board for cell, board in boards.items() if any(board.share(m, t) for m in board.models for t in tasks)}
    if not drawn:
        return None
    there = dict.fromkeys(m for board in drawn.values() for m in board.models if m != "popularity" and board.whole(m))
    models = list(there)[::-1]
    figure = Figure(figsize=(9, 0.8 + len(drawn) * (0.65 + 0.17 * len(models))), layout="constrained")
    panels = figure.subplots(len(drawn), len(tasks), sharey=True, squeeze=False)
    for row, (cell, board) in zip(panels, drawn.items(), strict=True):
        for axes, task in zip(row, tasks, strict=True):
            for height, model in enumerate(models):
                found = board.mean(board.share(model, task)) if board.whole(model) else None
                if found is None:
                    continue
                colour = OURS if model == plan.OURS else OTHERS
                axes.errorbar(found.mean, height, xerr=found.half, fmt="o", color=colour, markersize=4, capsize=2, linewidth=1)
            axes.locator_params(axis="x", nbins=5)
            axes.set_title(f"{named_cell(cell)}: {task}", fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(axis="x", color="#e2e8f0", linewidth=0.5)
        row[0].set_yticks(range(len(models)), models)
    for axes in panels[-1]:
        axes.set_xlabel("share of the reachable gain (a scale a panel)", fontsize=8)
    return _written(figure, path)


def angles(runs: Mapping[str, Record], path: Path) -> str | None:
    """Cosine of each two tasks' gradients over the epochs, a panel a model. None of no run."""
    models = [m for m in plan.ANGLED if m in runs]
    if not models:
        return None
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    for axes, model in zip(panels, models, strict=True):
        told = runs[model]["angles"]
        for pair, cosines in told["cosines"].items():
            axes.plot(told["epoch"], [float("nan") if c is None else c for c in cosines], label=pair, linewidth=1.2)
        axes.axhline(0, color="#94a3b8", linewidth=0.8)
        axes.set_title(model, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("cosine of the tasks' gradients", fontsize=8)
    panels[-1].legend(frameon=False, fontsize=7)
    return _written(figure, path)


def _written(figure: Figure, path: Path) -> str:
    with mpl.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}), lake.replacing(path) as part:
        figure.savefig(part, format="svg", metadata={"Date": None})
    return path.name
