"""What makes a row a good one: each rule one boolean expression, in one table, and the schema of the clean result.

A row gets the first rule of `RULES` that it breaks. The rules run inside the engine; pandera then holds the finished
partition against the same contract, with its failure cases capped (collecting them all is what makes it slow).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pandera.errors
import pandera.ibis as pandera
import pyarrow as pa

from assets import lake
from assets.reading import Span, entries, fields, json_fields, moment, number, text_key, whole, written
from models.contract import Contract
from models.home import EARLIER_DAY
from models.sections import Feature, Side, Source

RAW_CHARACTERS = 4000
FAILURE_CASES = 20
FILE_RULES = {
    "empty_file": "the file holds nothing",
    "unreadable_file": "the file cannot be read to its end",
    "missing_columns": "the file lacks columns that the contract reads",
}
DUPLICATE = "duplicate"
LEFT_OUT = "left_out"
"""Stands where a rule does, of a row that the contract leaves out: it is neither good nor bad."""


@dataclass(frozen=True)
class Layout:
    """What a row is read for: those of the log, or of one side table (then `timed` is False, and there is no behaviour).

    ids: `user` and `item`, or the side's key → its column and kind · features: those that stand in these files.
    """

    contract: Contract
    source: Source
    ids: dict[str, Feature]
    features: dict[str, Feature]
    timed: bool = True

    @classmethod
    def of_log(cls, contract: Contract) -> Layout:
        return cls(
            contract,
            contract.source,
            {
                name: Feature(column=column, kind=contract.kind(name))
                for name, column in (("user", contract.columns.user), ("item", contract.columns.item))
            },
            contract.log_features,
        )

    @classmethod
    def of_side(cls, contract: Contract, entity: str, side: Side) -> Layout:
        """`entity`: 'user' or 'item', whose table it is."""
        key = Feature(column=side.key, kind=contract.kind(entity))
        return cls(contract, side, {entity: key}, {name: contract.features[name] for name in side.features}, timed=False)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.contract.label_columns if self.timed else ()

    @property
    def behaves(self) -> bool:
        """Whether a column says what happened."""
        return self.timed and self.contract.columns.behaviour is not None

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every column that a file must have."""
        if self.timed:
            return self.contract.source_columns
        return tuple(dict.fromkeys(f.column for f in (self.ids | self.features).values()))

    @property
    def numbers(self) -> Iterator[tuple[str, str]]:
        """(ours, the source's) of every column that must hold numbers where it holds anything, the time aside."""
        yield from ((name, f.column) for name, f in (self.ids | self.features).items() if f.kind != "text")
        yield from ((name, name) for name in self.labels)

    def kept(self) -> dict[str, dt.DataType]:
        """The columns of what is kept and their types, in the order that they are sorted by."""
        own: dict[str, dt.DataType] = dict.fromkeys(self.ids, dt.int64)
        if self.timed:
            own = {"user": dt.int64, "time": dt.int64, "item": dt.int64}
            own |= {"behaviour": dt.string} if self.contract.shape == "events" else {}
        features = {
            column: dt.float64 if feature.kind == "number" else dt.int64
            for name, feature in self.features.items()
            for column in columns_of(name, feature)
        }
        texts = {text: dt.string for name, text in self.contract.text_columns.items() if name in self.ids | self.features}
        return own | features | dict.fromkeys(self.labels, dt.float64) | texts


def columns_of(name: str, feature: Feature) -> list[str]:
    """The lake's columns of one feature: its name, and numbered ones for the further entries of a list."""
    return [name, *(f"{name}_{n}" for n in range(2, feature.slots + 1))]


def kept(contract: Contract) -> dict[str, dt.DataType]:
    """The columns of an events partition and their types: those of the log, then those that side tables add."""
    own = Layout.of_log(contract).kept()
    added = [
        Layout.of_side(contract, entity, side).kept()
        for entity, side in (("user", contract.user_table), ("item", contract.item_table))
        if side
    ]
    return own | {name: kind for columns in added for name, kind in columns.items() if name not in own}


def arrow_schema(columns: dict[str, dt.DataType]) -> pa.Schema:
    """Columns as a Parquet schema; every one may be null to Parquet, what must not be is for `schema`."""
    return ibis.schema(columns).to_pyarrow()


def _source(column: str) -> str:
    """Name of a source column beside ours in one table; with a space, so that it is never one of ours."""
    return f"source {column}"


def _not_a_number(t: ir.Table, layout: Layout) -> ir.BooleanValue:
    return ibis.or_(ibis.literal(False), *(_wrong(t, ours, theirs) for ours, theirs in layout.numbers))


def _wrong(t: ir.Table, ours: str, theirs: str) -> ir.BooleanValue:
    """Something is written and it is no number; in a list, any entry of it."""
    if _list(ours) in t.columns:
        return t[_list(ours)].length() > t[_list(ours)].filter(lambda entry: entry.notnull()).length()
    return t[ours].isnull() & t[_source(theirs)].notnull()


def _list(name: str) -> str:
    return f"list {name}"


def _null_id(t: ir.Table, layout: Layout) -> ir.BooleanValue:
    return ibis.or_(*(t[_source(id.column)].isnull() for id in layout.ids.values()))


def _left_out(t: ir.Table, layout: Layout) -> ir.BooleanValue:
    columns = layout.contract.columns
    if not layout.timed or columns.behaviour is None or not columns.left_out:
        return ibis.literal(False)
    return t[_source(columns.behaviour)].cast("string").isin(list(map(str, columns.left_out)))


Rule = Callable[[ir.Table, Layout, Span], ir.BooleanValue]

RULES: dict[str, Rule] = {
    "not_json": lambda t, layout, span: (t.found != t.expected) & (layout.source.format == "jsonl"),
    "wrong_number_of_columns": lambda t, layout, span: t.found != t.expected,
    LEFT_OUT: lambda t, layout, span: _left_out(t, layout),
    "bad_utf8": lambda t, layout, span: t.damaged,
    "not_a_number": lambda t, layout, span: _not_a_number(t, layout),
    "null_id": lambda t, layout, span: _null_id(t, layout),
    "unknown_behaviour": lambda t, layout, span: t.behaviour.isnull() if layout.behaves else ibis.literal(False),
    "unreadable_time": lambda t, layout, span: t.time.isnull() if layout.timed else ibis.literal(False),
    "time_out_of_span": lambda t, layout, span: ~span.holds(t.time) if layout.timed else ibis.literal(False),
}
"""Broken by a single row; `LEFT_OUT` is there for its place alone. A last line that the file ends within and that breaks
any of them is a `truncated_line`, before all others; `duplicate` comes after, since it takes the whole file to see one."""


def judged(block: pa.Table, columns: tuple[str, ...], layout: Layout, span: Span) -> ir.Table:
    """The expression that reads one block of source rows, registered as `block`, and gives each its day and its rule.

    columns: those of the file. Result: number, day (partition, null when not known), rule, detail, raw (null on a good
    row, unless duplicates are still to be found), and what is kept.
    """
    t = ibis.table(ibis.Schema.from_pyarrow(block.schema), name="block")
    t = _with_sources(t, columns, layout)
    t = t.mutate(**_lists(t, layout))
    typed = {column: value for name, f in layout.ids.items() for column, value in _typed(t, name, f, layout)}
    typed |= {column: value for name, f in layout.features.items() for column, value in _typed(t, name, f, layout)}
    typed |= {name: number(t[_source(name)]) for name in layout.labels}
    if layout.timed:
        typed["time"] = moment(t[_source(layout.contract.time.column)], layout.contract, span)
        if layout.contract.shape == "events":
            typed["behaviour"] = _behaviour(t, layout.contract)
    t = t.mutate(**typed)
    broken = ibis.cases(
        *((rule(t, layout, span).fill_null(False), name) for name, rule in RULES.items()), else_=ibis.null("string")
    )
    t = t.mutate(broken=broken, day=span.day(t.time) if layout.timed else ibis.null("string"))
    t = t.mutate(rule=ibis.ifelse((t.broken != LEFT_OUT) & t.open, "truncated_line", t.broken))
    t = t.mutate(detail=_detail(t, layout, span))
    if layout.contract.validation.repeats == "real":
        t = t.mutate(raw=ibis.ifelse(t.rule != LEFT_OUT, t.raw, ibis.null("string")))
    return t.select("number", "day", "rule", "detail", "raw", *layout.kept())


def _lists(t: ir.Table, layout: Layout) -> dict[str, ir.Value]:
    """Per list feature its typed entries, those that are no key as nulls."""
    found = {}
    for name, feature in layout.features.items():
        if feature.separator:
            parts = entries(t[_source(feature.column)].cast("string"), feature.separator)
            found[_list(name)] = parts.map(text_key if feature.kind == "text" else whole)
    return found


def _typed(t: ir.Table, name: str, feature: Feature, layout: Layout) -> Iterator[tuple[str, ir.Value]]:
    source = t[_source(feature.column)]
    if feature.separator:
        yield from ((column, t[_list(name)][n]) for n, column in enumerate(columns_of(name, feature)))
    elif feature.kind == "text":
        yield name, text_key(source.cast("string"))
    else:
        yield name, whole(source) if feature.kind == "id" else number(source)
    if feature.kind == "text":
        yield layout.contract.text_columns[name], source.cast("string")


def _behaviour(t: ir.Table, contract: Contract) -> ir.StringValue:
    if contract.columns.behaviour is None:
        return ibis.literal(contract.actions[0])
    meanings = [(str(value), name) for name, b in contract.behaviours.items() for value in b.values]
    return t[_source(contract.columns.behaviour)].cast("string").cases(*meanings, else_=ibis.null("string"))


def _with_sources(t: ir.Table, columns: tuple[str, ...], layout: Layout) -> ir.Table:
    """One column `source …` per column that is read, and what the rules need to know of the line."""
    source, wanted = layout.source, layout.wanted
    if source.format == "parquet":
        shown = [ibis.literal(f"{c}=") + t[c].cast("string").fill_null("null") for c in wanted]
        t = t.mutate(raw=_shown(ibis.literal(", ").join(shown)), found=0, expected=0, damaged=False, open=False)
        return t.mutate(**{_source(c): written(t[c]) for c in wanted})
    cut = fields(t.text, source.delimiter) if source.format == "csv" else json_fields(t.text, columns)
    t = t.mutate(fields=cut)
    t = t.mutate(**{_source(c): written(t.fields[columns.index(c)]) for c in wanted})
    return t.mutate(raw=_shown(t.text), found=t.fields.length(), expected=len(columns))


def _shown(text: ir.StringValue) -> ir.StringValue:
    return text.left(RAW_CHARACTERS).replace("\0", "\\x00")


def _detail(t: ir.Table, layout: Layout, span: Span) -> ir.StringValue:
    """What was found, for a person."""
    wrong = [(_wrong(t, ours, c), _quoted(c, t[_source(c)]) + " is not a 64-bit number") for ours, c in layout.numbers]
    empty = [(t[_source(id.column)].isnull(), ibis.literal(f"{id.column} is empty")) for id in layout.ids.values()]
    columns = t.found.cast("string") + " columns, " + t.expected.cast("string") + " expected"
    quote = (
        "a quoted field does not end on its line (one over several lines is not read: a row is a line), or text follows its "
        "closing quote"
    )
    within = ""
    if layout.source.format != "parquet":
        mac = "; a carriage return stands within the line: if that is where it ends, write line ends as LF or CRLF throughout"
        within = ibis.ifelse(t.text.contains("\r"), mac, "")
    said = {
        "not_json": ibis.literal("the line is not one whole JSON object") + within,
        "wrong_number_of_columns": ibis.ifelse((t.found == 0) & (t.expected > 0), quote, columns) + within,
        "bad_utf8": ibis.literal("bytes that are not UTF-8, shown as \\x.."),
        "not_a_number": ibis.cases((ibis.literal(False), ""), *wrong, else_=""),
        "null_id": ibis.cases(*empty, else_=""),
        **_details_of_moment(t, layout, span),
    }
    detail = t.broken.cases(*said.items(), else_=ibis.null("string"))
    return ibis.ifelse(t.rule == "truncated_line", ibis.literal("the file ends within this line; ") + detail, detail)


def _details_of_moment(t: ir.Table, layout: Layout, span: Span) -> dict[str, ir.StringValue]:
    """What the log alone has: a time, and a behaviour."""
    if not layout.timed:
        return {}
    contract = layout.contract
    time = _quoted(contract.time.column, t[_source(contract.time.column)])
    form = f" ({contract.time.format})" if contract.time.format else ""
    days = f"{span.first} to {contract.calendar.last_day or 'the day the file came'}"
    said = {
        "unreadable_time": time + f" is not a time of kind {contract.time.kind}{form}",
        "time_out_of_span": time + f" is not within {days} ({contract.time.zone})",
    }
    if contract.columns.behaviour:
        known = ", ".join(str(value) for b in contract.behaviours.values() for value in b.values)
        behaviour = _quoted(contract.columns.behaviour, t[_source(contract.columns.behaviour)])
        said["unknown_behaviour"] = behaviour + f" is none of {known}"
    return said


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
