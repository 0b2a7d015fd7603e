"""What makes a row a good one: each rule one boolean expression, in one table, and the schema of the clean result.

A row gets the first rule of `RULES` that it breaks. The rules run inside the engine; pandera then holds the finished
partition against the same contract, with its failure cases capped (collecting them all is what makes it slow).
"""

from __future__ import annotations

from collections.abc import Callable

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pandera.errors
import pandera.ibis as pandera
import pyarrow as pa

from assets import lake
from assets.reading import Span, fields, moment, number, whole, written
from models.contract import Contract
from models.home import EARLIER_DAY

RAW_CHARACTERS = 4000
FAILURE_CASES = 20
FILE_RULES = {
    "empty_file": "the file holds nothing",
    "unreadable_file": "the file cannot be read to its end",
    "missing_columns": "the file lacks columns that the contract reads",
}
DUPLICATE = "duplicate"


def kept(contract: Contract) -> dict[str, dt.DataType]:
    """The columns of an events partition and their types, in the order that they are sorted by."""
    behaviour = {"behaviour": dt.string} if contract.columns.behaviour else {}
    return {
        "user": dt.int64,
        "time": dt.int64,
        "item": dt.int64,
        **behaviour,
        **dict.fromkeys(contract.features, dt.int64),
        **dict.fromkeys(contract.label_columns, dt.float64),
    }


def arrow_schema(contract: Contract) -> pa.Schema:
    """The schema of an events partition; every column may be null to Parquet, what must not be is for `schema`."""
    return ibis.schema(kept(contract)).to_pyarrow()


def _ids(contract: Contract) -> dict[str, str]:
    return {"user": contract.columns.user, "item": contract.columns.item}


def _numbers(contract: Contract) -> dict[str, str]:
    """Our name → source column of everything that must be a number, the time aside."""
    return {**_ids(contract), **contract.features, **{name: name for name in contract.label_columns}}


def _source(column: str) -> str:
    """Name of a source column beside ours in one table; with a space, so that it is never one of ours."""
    return f"source {column}"


def _not_a_number(t: ir.Table, contract: Contract) -> ir.BooleanValue:
    return ibis.or_(*(t[ours].isnull() & t[_source(theirs)].notnull() for ours, theirs in _numbers(contract).items()))


def _null_id(t: ir.Table, contract: Contract) -> ir.BooleanValue:
    return ibis.or_(*(t[_source(theirs)].isnull() for theirs in _ids(contract).values()))


RULES: dict[str, Callable[[ir.Table, Contract, Span], ir.BooleanValue]] = {
    "wrong_number_of_columns": lambda t, contract, span: t.found != t.expected,
    "bad_utf8": lambda t, contract, span: t.damaged,
    "not_a_number": lambda t, contract, span: _not_a_number(t, contract),
    "null_id": lambda t, contract, span: _null_id(t, contract),
    "unknown_behaviour": lambda t, contract, span: t.behaviour.isnull() if "behaviour" in t.columns else ibis.literal(False),
    "unreadable_time": lambda t, contract, span: t.time.isnull(),
    "time_out_of_span": lambda t, contract, span: ~span.holds(t.time),
}
"""Broken by a single row. A last line that the file ends within and that breaks any of them is a `truncated_line`, before
all others; `duplicate` comes after them, since it takes the whole file to see one."""


def judged(block: pa.Table, columns: tuple[str, ...], contract: Contract, span: Span) -> ir.Table:
    """The expression that reads one block of source rows, registered as `block`, and gives each its day and its rule.

    columns: those of the file. Result: number, day (partition, null when not known), rule, detail, raw (null on a good
    row, unless duplicates are still to be found), and `kept`.
    """
    t = ibis.table(ibis.Schema.from_pyarrow(block.schema), name="block")
    t = _with_sources(t, columns, contract)
    typed = {ours: whole(t[_source(theirs)]) for ours, theirs in {**_ids(contract), **contract.features}.items()}
    typed |= {name: number(t[_source(name)]) for name in contract.label_columns}
    typed["time"] = moment(t[_source(contract.time.column)], contract, span)
    if contract.columns.behaviour:
        meanings = [(str(value), name) for name, b in contract.behaviours.items() for value in b.values]
        typed["behaviour"] = t[_source(contract.columns.behaviour)].cast("string").cases(*meanings, else_=ibis.null("string"))
    t = t.mutate(**typed)
    broken = ibis.cases(
        *((rule(t, contract, span).fill_null(False), name) for name, rule in RULES.items()), else_=ibis.null("string")
    )
    t = t.mutate(broken=broken, day=span.day(t.time))
    t = t.mutate(rule=ibis.ifelse(t.broken.notnull() & t.open, "truncated_line", t.broken))
    t = t.mutate(detail=_detail(t, contract, span))
    if contract.validation.repeats == "real":
        t = t.mutate(raw=ibis.ifelse(t.rule.notnull(), t.raw, ibis.null("string")))
    return t.select("number", "day", "rule", "detail", "raw", *kept(contract))


def _with_sources(t: ir.Table, columns: tuple[str, ...], contract: Contract) -> ir.Table:
    """One column `source …` per column that the contract reads, and what the rules need to know of the line."""
    if contract.source.format == "parquet":
        shown = [ibis.literal(f"{c}=") + t[c].cast("string").fill_null("null") for c in contract.source_columns]
        t = t.mutate(raw=_shown(ibis.literal(", ").join(shown)), found=0, expected=0, damaged=False, open=False)
        return t.mutate(**{_source(c): written(t[c]) for c in contract.source_columns})
    t = t.mutate(fields=fields(t.text, contract.source.delimiter))
    t = t.mutate(**{_source(c): written(t.fields[columns.index(c)]) for c in contract.source_columns})
    return t.mutate(raw=_shown(t.text), found=t.fields.length(), expected=len(columns))


def _shown(text: ir.StringValue) -> ir.StringValue:
    return text.left(RAW_CHARACTERS).replace("\0", "\\x00")


def _detail(t: ir.Table, contract: Contract, span: Span) -> ir.StringValue:
    """What was found, for a person."""
    numbers = _numbers(contract).items()
    wrong = [
        (t[ours].isnull() & t[_source(c)].notnull(), _quoted(c, t[_source(c)]) + " is not a 64-bit number")
        for ours, c in numbers
    ]
    empty = [(t[_source(c)].isnull(), ibis.literal(f"{c} is empty")) for c in _ids(contract).values()]
    time = _quoted(contract.time.column, t[_source(contract.time.column)])
    known = ", ".join(str(value) for b in contract.behaviours.values() for value in b.values)
    days = f"{span.first} to {contract.calendar.last_day or 'the day the file came'}"
    columns = t.found.cast("string") + " columns, " + t.expected.cast("string") + " expected"
    quote = ibis.literal("a quoted field does not end on its line, or text follows its closing quote")
    said = {
        "wrong_number_of_columns": ibis.ifelse((t.found == 0) & (t.expected > 0), quote, columns),
        "bad_utf8": ibis.literal("bytes that are not UTF-8, shown as \\x.."),
        "not_a_number": ibis.cases(*wrong, else_=""),
        "null_id": ibis.cases(*empty, else_=""),
        "unreadable_time": time
        + f" is not a time of kind {contract.time.kind}"
        + (f" ({form})" if (form := contract.time.format) else ""),
        "time_out_of_span": time + f" is not within {days} ({contract.time.zone})",
    }
    if contract.columns.behaviour:
        said["unknown_behaviour"] = (
            _quoted(contract.columns.behaviour, t[_source(contract.columns.behaviour)]) + f" is none of {known}"
        )
    detail = t.broken.cases(*said.items(), else_=ibis.null("string"))
    return ibis.ifelse(t.rule == "truncated_line", ibis.literal("the file ends within this line; ") + detail, detail)


def _quoted(column: str, value: ir.Value) -> ir.StringValue:
    shown = value.cast("string").left(100).replace("\0", "\\x00").fill_null("")
    return ibis.literal(f"{column}: '") + shown + "'"


def schema(contract: Contract, day: str, *, empty: bool = False) -> pandera.DataFrameSchema:
    """What an events partition must be: exactly `kept`, ids and times there, behaviours known, times within its day.

    Of an empty one only the columns and types: pandera takes the null that an engine counts over no rows for a failure.
    """
    capped = {"n_failure_cases": FAILURE_CASES}
    if day == EARLIER_DAY:
        start = contract.day_start(contract.calendar.accept_from or contract.calendar.first_day)
        end = contract.day_start(contract.calendar.first_day)
    else:
        start, end = contract.day_start(day), contract.day_end(day)
    checks = {
        # Two checks: without `accept_from` no time is earlier, and an empty interval is no range to pandera.
        "time": [pandera.Check.ge(start, **capped), pandera.Check.lt(end, **capped)],
        "behaviour": [pandera.Check.isin(list(contract.actions), **capped)],
    }
    required = {"user", "item", "time", "behaviour"}
    columns = {
        name: pandera.Column(kind, [] if empty else checks.get(name, []), nullable=empty or name not in required)
        for name, kind in kept(contract).items()
    }
    return pandera.DataFrameSchema(columns, strict=True, name=f"events of {day}")


def schema_failures(table: ir.Table, contract: Contract, day: str) -> list[str]:
    """What in an events partition breaks its schema, at most `FAILURE_CASES` a check; empty when it holds."""
    try:
        schema(contract, day, empty=not table.count().execute()).validate(table, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        return [str(error).split("\n")[0] for error in errors.schema_errors]
    return []


def code() -> str:
    """Hash of the code that decides how a source row is read and judged."""
    return lake.code_hash("assets/parsing.py", "assets/reading.py", "assets/validation.py")
