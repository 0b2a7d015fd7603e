"""`dtrn init` and `dtrn check`: from a log that nobody has described to a contract that a demo runs on, said in words."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assets import draft, trial
from assets.guessed_time import Ask
from assets.plausibility import SHOWN
from models.contract import Contract, ContractError, load
from models.home import EARLIER_DAY

KEYS = ("user", "item", "behaviour", "labels", "time", "year", "zone", "name")


def write_draft(log: str, out: Path, answers: Sequence[str], console: Console) -> None:
    """Write the draft of a contract for `log` to `out`. Raises ValueError with a question that nobody is there to answer."""
    if out.suffix != ".toml":
        raise ValueError(f"--out {out}: a contract is a .toml file")
    if out.exists():
        raise ValueError(f"{out} is there already; name another --out, or delete it first")
    given = dict(_answer(text) for text in answers)
    if unknown := sorted(set(given) - set(KEYS)):
        raise ValueError(f"--answer {unknown[0]}=…: nothing ever asks for that; what can be answered is {', '.join(KEYS)}")
    name = given.pop("name", re.sub(r"[^a-z0-9]+", "_", out.stem.lower()).strip("_") or "mine")
    asked = set[str]()
    toml, asides = draft.draft(log, name if name[0].isalpha() else f"log_{name}", _ask(given, asked, console))
    if unused := sorted(set(given) - asked):
        raise ValueError(
            f"--answer {unused[0]}=…: nothing asks for that here; asked for are {', '.join(sorted(asked))} and name"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(toml)
    try:
        load(out)
    except ContractError:
        out.unlink()  # a draft that is refused would stand in the way of the next
        raise
    console.print(toml, markup=False)
    for aside in asides:
        console.print(f"! {aside}", markup=False, highlight=False)
    console.print(
        f"written to {out}. Read its comments, then:\n  ./dtrn check {out} {log}\n  make demo DATASET={out} LOG={log}",
        markup=False,
    )


def _answer(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--answer {text}: 'key=value' is expected, for example --answer user=visitor_id")
    return key.strip(), value.strip()


def _ask(given: dict[str, str], asked: set[str], console: Console) -> Ask:
    def ask(key: str, question: str, options: Sequence[tuple[str, str]]) -> str:
        asked.add(key)
        if key in given or not question:  # what has no question is only taken when it is given
            return given.get(key, "")
        if not sys.stdin.isatty():
            listed = "\n".join(f"  --answer {key}={value or '…'}   {evidence}" for value, evidence in options)
            raise ValueError(f"{question} It could go more than one way; say it with the call:\n{listed}")
        console.print(f"\n{question}", markup=False)
        for number, (value, evidence) in enumerate(options, 1):
            console.print(f"  {number}  {value}  ({evidence})", markup=False)
        answer = str(typer.prompt("number or name")).strip()
        return options[int(answer) - 1][0] if answer.isdigit() and 0 < int(answer) <= len(options) and options[0][0] else answer

    return ask


def tell_trial(contract: Contract, path: str, log: str, console: Console) -> bool:
    """Try `contract` on the first rows of `log` and say what came of it; whether it could be trained on."""
    found = trial.attempt(contract, log, datetime.now(UTC))
    bad = found.rows_in - found.valid
    read = found.rows_in + found.left_out
    console.print(f"[bold]{escape(contract.name)}[/bold]: first {read:,} rows, about {found.share:.0%} of the log")
    if found.left_out:
        console.print(f"  {found.left_out:,} left out, as columns.left_out says")
    calendar = [day for day in found.days if day != EARLIER_DAY]
    console.print(
        f"  {found.valid:,} valid on {len(calendar)} days, {bad:,} would be quarantined ({bad / max(found.rows_in, 1):.2%})"
    )
    if blocked := bad > contract.validation.max_bad_share * found.rows_in:
        console.print(
            f"  [yellow]![/yellow] that is more than validation.max_bad_share allows ({contract.validation.max_bad_share:.0%})"
        )
    for rule, broken in found.rules.items():
        where = f"{'row' if contract.source.format == 'parquet' else 'line'} {broken.line} of "
        place = ("" if broken.line is None else where) + broken.file  # a file of which no row can be used has no line to show
        console.print(f"    {broken.rows:,} × {rule}, first in {place}: {broken.detail}", markup=False)
        if rule == "bad_utf8":
            console.print(
                "      is the file of another encoding? For example: iconv -f LATIN1 -t UTF-8 old.csv > new.csv", markup=False
            )
        itemless = rule == "null_id" and broken.detail == f"{contract.columns.item} is empty"
        if contract.columns.behaviour and (itemless or rule == "unknown_behaviour"):
            console.print(
                "      are these no events of an item, as a search is none? Then left_out = […] under [columns], with their "
                f"values of '{contract.columns.behaviour}'",
                markup=False,
            )
        if broken.raw:
            console.print(f"      {broken.raw[:160]}", markup=False, style="dim")
    for entity, (used, rows) in found.sides.items():
        console.print(f"  {entity}_table: {used:,} {entity}s from {rows:,} rows")
    if volumes := {day: rows for day, rows in found.days.items() if day != EARLIER_DAY}:
        least, most = min(volumes.values()), max(volumes.values())
        console.print(f"  days {min(volumes)} to {max(volumes)}, {least:,} to {most:,} rows each", markup=False)
        _tell_unusual(contract, found, volumes, console)
    _tell_samples(contract, found, console)
    if found.why_not:
        console.print(f"  [yellow]![/yellow] nothing could be learned from these rows: {escape(found.why_not)}")
        return False
    if blocked:
        console.print("mend the contract or the log first: a demo would stop at its bad rows", markup=False)
        return False
    console.print(f"next:  make demo DATASET={path} LOG={log}", markup=False)
    return True


def _tell_unusual(contract: Contract, found: trial.Trial, volumes: dict[str, int], console: Console) -> None:
    """Days that the check on the volume would stop at, once they are over; the last one may be cut off by the trial itself."""
    terms, whole = contract.checks.volume, {d: n for d, n in volumes.items() if found.share >= 1 or d != max(volumes)}
    usual = median(whole.values()) if whole else 0
    odd = {
        day: rows
        for day, rows in whole.items()
        if day not in map(str, contract.checks.unusual_days) and not terms.smallest * usual <= rows <= terms.largest * usual
    }
    if len(odd) > SHOWN:
        gaps = len(whole) < (date.fromisoformat(max(whole)) - date.fromisoformat(min(whole))).days + 1
        least, most = 0 if gaps else min(odd.values()), max(odd.values())
        smallest = min(math.floor(100 * least / usual) / 100, terms.smallest)
        wide = f"smallest = {smallest:g}, largest = {math.ceil(max(most / usual, terms.largest)):g}"
        told = f"{len(odd)} of {len(whole)} days are far from the median day's {usual:,.0f} rows, {least:,} to {most:,}"
        console.print(
            f"  [yellow]![/yellow] {told}; if the log is like that, begin with volume = {{ {wide} }} under \\[checks]",
            highlight=False,
        )
        return
    for day, rows in odd.items():
        told = f"{day} has {rows:,} rows, the median day {usual:,.0f}; if that is right (an outage, a sale)"
        console.print(f"  [yellow]![/yellow] {told}: unusual_days = [{day}] under \\[checks]", highlight=False)


def _tell_samples(contract: Contract, found: trial.Trial, console: Console) -> None:
    table = Table(box=None, padding=(0, 2), show_edge=False)
    for name in ("  task", "positives", "of the samples"):
        table.add_column(name, justify="left" if name == "  task" else "right")
    for task, positives in found.positives.items():
        table.add_row(f"  {task}", f"{positives:,}", f"{positives / max(found.samples, 1):.2%}")
    console.print(f"  {found.samples:,} samples")
    console.print(table)
    # A log is ordered by user, and its first rows show all its days, or by time, and then there are as many more of them.
    length = math.ceil(len(found.days) / max(found.share, 1e-9))
    length = min(length, len(contract.days(contract.calendar.last_day))) if contract.calendar.last_day else len(found.days)
    window = min(contract.training.window_days, max(length, 1))
    per_day = found.samples / max(found.share, 1e-9) / max(length, 1)
    for name, speed in found.speed.items():
        seconds = per_day * window * contract.training.epochs / speed
        told = f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{seconds:.0f} s"
        terms = f"{speed:,.0f} samples a second, {window} days of about {per_day:,.0f}, {contract.training.epochs} epochs"
        console.print(
            f"  {name}: at most about {told} a judged day here ({terms})",
            markup=False,
        )
