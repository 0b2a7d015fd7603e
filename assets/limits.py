"""How many bad rows a file may have before nobody may read the days that it speaks of, and how that is said."""

from __future__ import annotations

from collections.abc import Iterable

from assets.ledger import Entry
from assets.splitting import Split
from models.contract import Contract
from models.home import UNKNOWN_DAY

REMEDY = (
    "deliver the file again, mended, under the same name, or raise the limit in the contract, "
    "then run ./dtrn ingest again (in the UI: materialise log_files and events)"
)


def over_limit(split: Split, contract: Contract) -> bool:
    """Whether a file breaks the limit on any day, or with its rows without one."""
    return any(excess(split, day, contract) for day in {*split.days, UNKNOWN_DAY})


def excess(split: Split, day: str, contract: Contract) -> tuple[int, int, str] | None:
    """(bad rows, of how many, commonest rule) when a file breaks the limit on a day, None when it keeps it.

    `unknown`: the rows without a day, which count against the whole file, with the rows in it that the contract leaves out.
    """
    rules = split.bad.get(day, {})
    bad = sum(rules.values())
    rows = split.rows_read if day == UNKNOWN_DAY else bad + split.valid.get(day, 0)
    if not bad or bad <= contract.validation.max_bad_share * rows:
        return None
    return bad, rows, max(sorted(rules), key=lambda rule: rules[rule])


def concerns(split: Split, day: str) -> bool:
    """Whether a file speaks of a day: it has rows of it, or it has rows, but none with a day (so they may be anyone's).

    An empty file speaks of none: nothing in it is known to be lost.
    """
    dayless = split.rows_in > 0 and not split.days and "empty_file" not in split.bad[UNKNOWN_DAY]
    return day in split.days or dayless


def blocked(files: Iterable[tuple[Entry, Split]], day: str, contract: Contract) -> str | None:
    """Why a day may not be read, for the files that concern it; None when it may."""
    reasons = [
        _reason(entry, split, day, where, contract)
        for entry, split in files
        for where in (day, UNKNOWN_DAY)
        if excess(split, where, contract)
    ]
    return " | ".join(reasons) or None


def _reason(entry: Entry, split: Split, day: str, where: str, contract: Contract) -> str:
    see = f"See quarantine/day={where}"
    if split.refused:
        said = f"{entry.name}: no row of it can be used, and it may hold rows of any day: {split.refused}"
        return f"{said}. {see}; take the file out of the log to go on without it, or {REMEDY}"
    told = excess(split, where, contract)
    assert told is not None
    bad, rows, rule = told
    which = (
        f"rows of {day} are bad" if where == day else "rows are bad and show no day of the calendar, so any day may lack them"
    )
    limit = f"{bad / rows:.1%}, and validation.max_bad_share is {contract.validation.max_bad_share:.1%}"
    most = f"most often broken is the rule '{rule}' ({split.examples[rule]})"
    return f"{entry.name}: {bad} of {rows} {which}: {limit}; {most}. {see}; {REMEDY}"
