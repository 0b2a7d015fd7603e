"""The pictures of a verdict, drawn from its JSON alone: differences with their intervals, ROC and calibration curves.

Figures are made without pyplot, so nothing global is touched; an SVG comes out as a fragment that can stand in a page (no XML
head, no namespace address, text as text) and with the same bytes each time. What the pictures mean is said on the page.
"""

import base64
import io
import re
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from models.judgement import CHAMPION, MEAN, POPULARITY

INK, QUIET, GRID = "#1f2933", "#6b7785", "#dfe4e8"
COLOURS = {CHAMPION: "#c8581f", POPULARITY: "#8f98a3", "lightgbm": "#2d8a66"}
CHALLENGER = "#0b5cad"
OUTCOMES = {"better": "#0b5cad", "worse": "#b3261e"}
Verdict = dict[str, Any]


def colour(verdict: Verdict, model: str) -> str:
    """A model's colour, the same in every picture and table."""
    return CHALLENGER if model == verdict["challenger"]["name"] else COLOURS[model]


def forest(verdict: Verdict, other: str) -> Figure:
    """One row a task and, of several judged, one for the mean: how much higher the challenger's AUC is, with the interval."""
    rows = verdict["comparisons"][other]
    if sum(c["judged"] for task, c in rows.items() if task != MEAN) < 2:
        rows = {task: c for task, c in rows.items() if task != MEAN}
    height = 0.36 * len(rows) + 0.3
    figure = Figure(figsize=(4.3, height))
    axes = figure.add_axes((0.15, 0.3 / height, 0.35, 1 - 0.3 / height))
    judged = [c for c in rows.values() if c["judged"]]
    low, high = min([0.0, *(c["low"] for c in judged)]), max([0.0, *(c["high"] for c in judged)])
    room = 0.08 * (high - low) or 0.01
    axes.set(xlim=(low - room, high + room), ylim=(len(rows) - 0.5, -0.5))
    axes.axvspan(0, high + room, color=CHALLENGER, alpha=0.06, lw=0)
    axes.axvline(0, color=QUIET, lw=0.9)
    for place, (task, c) in enumerate(rows.items()):
        if task == MEAN:
            axes.axhline(place - 0.5, color=GRID, lw=1)
        shade = OUTCOMES.get(c["note"], QUIET)
        if c["judged"]:
            axes.plot([c["low"], c["high"]], [place, place], color=shade, lw=2.2, solid_capstyle="round")
            axes.plot(
                [c["difference"]], [place], "o", ms=6.5, color=shade if c["note"] in OUTCOMES else "white", mec=shade, mew=1.6
            )
        words = f"{c['difference']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]" if c["judged"] else "not judged"
        axes.annotate(_short(task), (0, place), xycoords=("figure fraction", "data"), va="center", color=INK, fontsize=9.5)
        axes.annotate(
            _minus(words), (1, place), xycoords=("figure fraction", "data"), ha="right", va="center", color=shade, fontsize=8.8
        )
    ticks = [0.0, *(end for end in (low, high) if abs(end) > 0.2 * (high - low))]
    axes.set_xticks(ticks, [_minus(f"{x:+.3f}") if x else "0" for x in ticks])
    _plain(axes)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    return figure


def roc(verdict: Verdict, task: str) -> Figure:
    """True against false positive rate, one line a model."""
    figure = Figure(figsize=(3.4, 3.1))
    axes = figure.add_axes((0.17, 0.16, 0.8, 0.81))
    axes.plot([0, 1], [0, 1], color=QUIET, lw=0.8, ls=(0, (3, 3)))
    for model, curve in _lines(verdict, task):
        axes.plot(*curve["roc"], color=colour(verdict, model), lw=1.6, label=model)
    axes.set(xlim=(0, 1), ylim=(0, 1.005), xlabel="negatives ranked above", ylabel="positives ranked above")
    _plain(axes)
    axes.grid(color=GRID, lw=0.6)
    return figure


def calibration(verdict: Verdict, task: str) -> Figure:
    """What happened against what was predicted, one dot a bin of equally many rows."""
    figure = Figure(figsize=(3.4, 3.1))
    axes = figure.add_axes((0.17, 0.16, 0.8, 0.81))
    top = 0.0
    for model, curve in _lines(verdict, task):
        predicted, observed, _ = curve["calibration"]
        axes.plot(predicted, observed, "o-", color=colour(verdict, model), lw=1.2, ms=3.6, label=model)
        top = max([top, *predicted, *observed])
    top = top * 1.05 or 1.0
    axes.plot([0, top], [0, top], color=QUIET, lw=0.8, ls=(0, (3, 3)), zorder=0)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="predicted", ylabel="happened")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.MaxNLocator(5))
        axis.set_major_formatter(lambda share, _: f"{share * 100:.3g}%")
    _plain(axes)
    axes.grid(color=GRID, lw=0.6)
    return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an element for an HTML page; `name` keeps its ids apart from those of the page's other figures."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| id="[a-zA-Z0-9]+_\d+"', "", text)
    return re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", text, count=2)


def pngs(verdict: Verdict) -> dict[str, str]:
    """base64 of small PNGs, by the name that the UI shows: every difference, and ROC and calibration by task."""
    tasks = list(next(iter(verdict["models"].values())))
    figures = {f"difference to {other}": forest(verdict, other) for other in verdict["comparisons"]}
    for task in tasks:
        figures |= {f"ROC of {task}": roc(verdict, task), f"calibration of {task}": calibration(verdict, task)}
    out = {}
    for name, figure in figures.items():
        for axes in figure.axes:
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=7, frameon=False)
        part = io.BytesIO()
        figure.savefig(part, format="png", dpi=80)
        out[name] = base64.b64encode(part.getvalue()).decode()
    return out


def _lines(verdict: Verdict, task: str) -> list[tuple[str, Any]]:
    """Curves of a task by model, the challenger last so that it lies on top; none where there is nothing to draw."""
    models = [*[m for m in verdict["curves"] if m != verdict["challenger"]["name"]], verdict["challenger"]["name"]]
    return [(model, verdict["curves"][model][task]) for model in models if verdict["curves"][model][task]["roc"][0]]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(color=GRID, labelcolor=QUIET, labelsize=8, length=3)
    axes.xaxis.label.set(color=QUIET, fontsize=9)
    axes.yaxis.label.set(color=QUIET, fontsize=9)
    axes.set_axisbelow(True)


def _short(name: str) -> str:
    """A task's name, cut where it would run into the picture."""
    return name if len(name) <= 10 else f"{name[:9]}…"


def _minus(text: str) -> str:
    return text.replace("-", "−")
