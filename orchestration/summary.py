"""What the demo came to: one dictionary for `summary.json`, and the same for a person on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from assets import evaluation, ingest, lake, packaging, registry
from models.contract import Contract
from models.days import span
from models.home import Home
from orchestration.progress import Step

MEASURES = ("auc", "auc_low", "auc_high", "gauc", "logloss", "ece", "positives", "negatives")
WIDEST = 200
Summary = dict[str, Any]


def summarise(
    home: Home, contract: Contract, *, source: str, days: Sequence[str], judged_day: str, steps: Sequence[Step]
) -> Summary:
    """The figures of a finished demo, read from the records that its steps left. `source`: the log that was taken in.

    Without a champion (no challenger has beaten popularity yet) what comes after it is None.
    """
    reigning = registry.champion(home)
    verdict = evaluation.read(home, judged_day)
    parity = _parity(home, reigning) if reigning else None
    served = lake.require(home, "replay", judged_day).detail if reigning else None
    return {
        "dataset": contract.name,
        **ingest.totals(home, contract, source),
        "days": len(days),
        "samples": sum(lake.require(home, "samples", day).counts["samples"] for day in days),
        "models": {
            name: {task: {key: measured[key] for key in MEASURES} for task, measured in tasks.items()}
            for name, tasks in verdict["models"].items()
        },
        "champion": reigning.tag if reigning else None,
        "verdict": {
            "judged_day": judged_day,
            "judged_days": verdict["judged_days"],
            "challenger": verdict["challenger"]["name"],
            "promote": verdict["promote"],
            "reasons": verdict["reasons"],
        },
        "bento_tag": reigning.bento if reigning else None,
        "parity": {key: parity[key] for key in ("rows", "max_difference")} if parity else None,
        "served": {key: served[key] for key in ("requests", "ok", "p50_ms", "p99_ms")} if served else None,
        "drift_report": str(home.drift_report(judged_day)) if reigning else None,
        "seconds": {step.name: round(step.seconds, 2) for step in steps},
        "recomputed": [step.name for step in steps if step.recomputed],
    }


def _parity(home: Home, reigning: registry.Champion) -> dict[str, Any] | None:
    """The parity of the very bento that reigns: its judged day may have been packaged anew since, with another."""
    path = home.promotion("parity", reigning.judged_day)
    found = packaging.read(path) if path.is_file() else None
    return found if found and found["bento"] == reigning.bento else None


def show(console: Console, home: Home, summary: Summary, *, serve: str) -> None:
    """Print the summary as a table. `serve`: the command that serves the champion."""
    verdict, served, parity = summary["verdict"], summary["served"], summary["parity"]
    reigning = registry.champion(home)
    told = {
        "rows": f"{summary['rows_in']:,} in, {summary['rows_valid']:,} valid, {summary['rows_quarantined']:,} quarantined"
        + (f"; {summary['rows_left_out']:,} left out by the contract" if summary["rows_left_out"] else ""),
        "samples": f"{summary['samples']:,} on {summary['days']} days",
        "champion": summary["champion"] or "none yet: the first one must beat popularity",
        # Of a champion that this verdict crowned, the verdict says why it reigns.
        "why": reigning.why if reigning and not (verdict["promote"] and reigning.judged_day == verdict["judged_day"]) else "",
        f"verdict of {verdict['judged_day']}": "\n".join(verdict["reasons"]),
    }
    if summary["champion"]:
        told |= {
            "parity": f"{parity['rows']:,} rows re-scored over HTTP, largest difference {parity['max_difference']:.1e}"
            if parity
            else "the bento of its judged day is another by now, so there is no figure",
            "replay": f"{served['ok']:,} of {served['requests']:,} requests answered, "
            f"p50 {served['p50_ms']:.1f} ms, p99 {served['p99_ms']:.1f} ms",
            "drift report": summary["drift_report"],
        }
    told |= {"verdict page": str(home.verdict_page(verdict["judged_day"])), "summary": str(home.summary)}
    told |= {"serve it": serve} if summary["champion"] else {}
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")  # a path is to be copied, so never cut short
    for name, text in told.items():
        if text:
            facts.add_row(f"[bold]{escape(name)}[/bold]", escape(text))
    measures = _measures(summary, evaluation.read(home, verdict["judged_day"])["models"])
    # As wide as its figures are, which a task with a long name would else cut short.
    measures.width = Measurement.get(console, console.options.update_width(WIDEST), measures).maximum
    console.print(Group("", measures, ""), soft_wrap=True)
    console.print(facts)


def _measures(summary: Summary, models: dict[str, Any]) -> Table:
    """One row per task and model of a verdict's `models`, for a terminal of 80 columns unless a task has a long name."""
    table = Table(
        title=f"{summary['dataset']}, judged on {span(summary['verdict']['judged_days'])}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    for name in ("task", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("AUC", "95 % CI", "GAUC\n(users, rows)", "log loss", "ECE", "positives"):
        table.add_column(name, justify="right", no_wrap=True)
    tasks = list(next(iter(models.values())))
    for task in tasks:
        for place, (model, measured) in enumerate(models.items()):
            m = measured[task]
            interval = f"{m['auc_low']:.3f}–{m['auc_high']:.3f}" if m["auc_low"] is not None else "too few"
            figures = [_gauc(m), _figure(m["logloss"]), _figure(m["ece"])]
            shown = (task, f"{m['positives']:,}") if place == 0 else ("", "")
            table.add_row(shown[0], model, _figure(m["auc"]), interval, *figures, shown[1])
        table.add_section()
    return table


def _gauc(measured: dict[str, Any]) -> str:
    """Its value and how much of the day it speaks for: the users, and the rows, that have both classes."""
    if measured["gauc"] is None:
        return "–"
    return f"{measured['gauc']:.3f} {measured['gauc_users_share']:.0%} {measured['gauc_rows_share']:.0%}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
