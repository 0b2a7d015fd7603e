"""From a block of source rows to typed columns, as Ibis expressions: fields, whole numbers, numbers, moments, local days.

A value that cannot be read becomes null here; why a row is then refused is said in `assets.validation`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import duckdb
import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir

from assets.lake import engine
from models.contract import Contract, ContractError
from models.home import EARLIER_DAY
from models.keys import BLANKS, NULLS
from models.requests import NULL_KEY
from models.sections import EPOCH_DAY

DAY_MS = 86_400_000
FAR_MS = 10**16
"""Beyond any calendar, and far enough from the ends of 64 bits to calculate with."""
ISO_DATE = r"^\d{4}-\d{2}-\d{2}$"
ISO_TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?)?$"
ISO_OFFSET = r"(Z|[+-]\d{2}(:?\d{2})?)$"
WHOLE = r"^[+-]?\d{1,19}(\.0*)?$"
FRACTION = r"\.\d*[1-9]"
DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"


@ibis.udf.scalar.builtin(name="regexp_extract_all", signature=((dt.string, dt.string, dt.int32), dt.Array(dt.string)))
def _extract_all(text, pattern, group): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="json_valid", signature=((dt.string,), dt.boolean))
def _json_valid(text): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="json_type", signature=((dt.string,), dt.string))
def _json_type(text): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="json_extract_string", signature=((dt.string, dt.Array(dt.string)), dt.Array(dt.string)))
def _json_strings(text, pointers): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="from_json", signature=((dt.string, dt.string), dt.Array(dt.string)))
def _from_json(text, structure): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="md5_number_lower", signature=((dt.string,), dt.uint64))
def _md5_lower(text): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="try_strptime", signature=((dt.string, dt.string), dt.timestamp))
def _strptime_local(text, form): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="try_strptime", signature=((dt.string, dt.string), dt.Timestamp("UTC")))
def _strptime_offset(text, form): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="timezone", signature=((dt.string, dt.timestamp), dt.Timestamp("UTC")))
def _in_zone(zone, moment): ...  # type: ignore[no-untyped-def]


@ibis.udf.scalar.builtin(name="epoch_ms", signature=((dt.Timestamp("UTC"),), dt.int64))
def _epoch_ms(moment): ...  # type: ignore[no-untyped-def]


@dataclass(frozen=True)
class Span:
    """The local days that rows may fall on: from the contract's `accept_from` (or first day) to its last.

    names: the partition of each day, `earlier` before the first (N,) · starts: epoch ms of each day's local midnight, and
    that of the day after the last (N + 1,).
    """

    first: date
    names: tuple[str, ...]
    starts: tuple[int, ...]

    @classmethod
    def of(cls, contract: Contract, newest: date) -> Span:
        """`newest` bounds an open calendar: no row of a later day can have happened when its file was first seen."""
        first = contract.calendar.accept_from or contract.calendar.first_day
        last = max(contract.calendar.last_day or newest, first)
        days = [first + timedelta(days=n) for n in range((last - first).days + 2)]
        names = tuple(EARLIER_DAY if day < contract.calendar.first_day else str(day) for day in days[:-1])
        return cls(first, names, tuple(contract.day_start(day) for day in days))

    def holds(self, time: ir.IntegerValue) -> ir.BooleanValue:
        return time.between(self.starts[0], self.starts[-1] - 1)

    def day(self, time: ir.IntegerValue) -> ir.StringValue:
        """The partition of a moment (epoch ms); null outside the span.

        A local day is 23 to 25 hours long, so a division by 24 hours is off by one day at most, and is put right.
        """
        starts = ibis.literal(list(self.starts), type="array<int64>")
        guess = ((time - self.starts[0]) // DAY_MS).clip(0, len(self.names) - 1)
        place = guess - (time < starts[guess]).cast("int64") + (time >= starts[guess + 1]).cast("int64")
        return ibis.ifelse(self.holds(time), ibis.literal(list(self.names), type="array<string>")[place], ibis.null("string"))

    def midnight(self, number: ir.IntegerValue) -> ir.IntegerValue:
        """Epoch ms of local midnight of the day `number` (days since 1970); a rough value outside the span."""
        place = number - (self.first - date(1970, 1, 1)).days
        last = len(self.names)
        return (
            ibis.literal(list(self.starts), type="array<int64>")[place.clip(0, last)] + (place - place.clip(0, last)) * DAY_MS
        )


def fields(text: ir.StringValue, delimiter: str) -> ir.ArrayValue:
    """The fields of a CSV line (RFC 4180); an empty list when a quote does not close, or something follows where it does.

    A delimiter of several characters is none of RFC 4180's, and a quote beside it is a letter.
    """
    if len(delimiter) > 1:
        return text.split(delimiter)
    mark = re.escape(delimiter)
    quoted, bare = r'"(?:[^"]|"")*"', rf'(?:[^{mark}"][^{mark}]*)?'
    field = f"(?:{quoted}|{bare})"
    sound = text.re_search(f"^{field}(?:{mark}{field})*$")
    parts = _extract_all(ibis.literal(delimiter) + text, f"{mark}({quoted}|{bare})", 1).map(
        lambda part: ibis.ifelse(part.startswith('"'), part.substr(1, part.length() - 2).replace('""', '"'), part)
    )
    slow = ibis.ifelse(sound, parts, ibis.literal([], type="array<string>"))
    return ibis.ifelse(text.contains('"'), slow, text.split(delimiter))


def json_fields(text: ir.StringValue, names: Sequence[str]) -> ir.ArrayValue:
    """The values of these keys (or, with a leading slash, pointers) of a JSON object as texts; empty when it is no object."""
    pointers = [name if name.startswith("/") else "/" + name.replace("~", "~0").replace("/", "~1") for name in names]
    nothing = ibis.literal([], type="array<string>")
    is_object = ibis.ifelse(_json_valid(text), _json_type(text) == "OBJECT", False)
    return ibis.ifelse(is_object, _json_strings(text, ibis.literal(pointers, type="array<string>")), nothing)


def entries(value: ir.StringValue, separator: str) -> ir.ArrayValue:
    """The entries of a `written` list, a JSON array or text cut at `separator`, each `written`, the empty ones left out."""
    array = ibis.ifelse(value.startswith("["), _json_valid(value), False)
    parts = ibis.ifelse(array, _from_json(value, '["VARCHAR"]'), value.split(separator))
    return parts.map(written).filter(lambda entry: entry.notnull())


def text_key(text: ir.StringValue) -> ir.IntegerValue:
    """The key of a `written` text, as `models.keys.text_key` gives it."""
    return (_md5_lower(text) >> 1).cast("int64")


def written(value: ir.Value) -> ir.Value:
    """A source value without the blanks around it; null when nothing is written, as in an empty field."""
    if not value.type().is_string():
        return value
    spaced = ibis.or_(*(value.contains(blank) for blank in BLANKS))
    text = ibis.ifelse(spaced, value.strip(), value)  # to trim every value would take longer than all the rest
    return ibis.ifelse((text.length() <= 4) & text.isin(NULLS), ibis.null("string"), text)


def whole(value: ir.Value) -> ir.IntegerValue:
    """A `written` value as a 64-bit integer, null when it is none; `12.0` is one, as exports of nullable integers write it."""
    kind = value.type()
    if kind.is_integer() or kind.is_boolean():
        number = value.try_cast("int64")
    else:
        text = value.cast("string")
        whole_part = ibis.ifelse(text.contains("."), text.split(".")[0], text)
        number = ibis.ifelse(text.re_search(WHOLE), whole_part.try_cast("int64"), ibis.null("int64"))
    return number.nullif(NULL_KEY)  # NULL_KEY stands for 'no value' further on


def number(value: ir.Value) -> ir.FloatingValue:
    """A `written` value as a finite 64-bit float, null when it is none; true is 1 and false 0."""
    if value.type().is_string():
        decimal = ibis.ifelse(value.re_search(DECIMAL), value.try_cast("float64"), ibis.null("float64"))
        value = ibis.cases((value.lower() == "true", 1.0), (value.lower() == "false", 0.0), else_=decimal)
    found = value.cast("float64")
    return ibis.ifelse(found.isnan() | found.isinf(), ibis.null("float64"), found)


def moment(value: ir.Value, contract: Contract, span: Span) -> ir.IntegerValue:
    """A `written` value as epoch ms, null when no time can be read. A naive local time is read in the contract's zone.

    Of a local time that the clocks pass twice the later is taken; one that they skip is moved on by the skipped hour.
    """
    kind = contract.time.kind
    temporal = value.type().is_timestamp() or value.type().is_date()
    if kind.startswith("epoch"):
        return ibis.null("int64") if temporal else _epoch(value, kind)
    if kind == "date":
        return span.midnight(day_number(value, contract))
    return _epoch_ms(_timestamp(value, contract))


def day_number(value: ir.Value, contract: Contract) -> ir.IntegerValue:
    """Days since 1970 of a `written` date, null when none can be read."""
    if (step := EPOCH_DAY.get(contract.time.format or "")) and not (value.type().is_timestamp() or value.type().is_date()):
        return whole(value).clip(-FAR_MS, FAR_MS) // step
    return _date(value, contract).cast("timestamp").epoch_seconds() // 86_400


def _epoch(value: ir.Value, kind: str) -> ir.IntegerValue:
    if kind == "epoch_us":
        return whole(value).clip(-FAR_MS * 900, FAR_MS * 900) // 1000
    if kind == "epoch_ms":
        return whole(value).clip(-FAR_MS, FAR_MS)
    seconds = whole(value).clip(-FAR_MS // 1000, FAR_MS // 1000) * 1000
    fraction = value.cast("string").re_search(FRACTION)  # 1577836800.25, as time.time() writes it
    return ibis.ifelse(fraction, (number(value).clip(-FAR_MS / 1000, FAR_MS / 1000) * 1000).floor().cast("int64"), seconds)


def _dated(text: ir.StringValue, contract: Contract) -> tuple[ir.StringValue, str]:
    """The text and its format with the year that the contract adds; '829' under '%m%d' is the 29th of August."""
    form = contract.time.format
    assert form
    if contract.time.year is None:
        return text, form
    if form in ("%m%d", "%d%m"):
        text = text.lpad(4, "0")
    return ibis.literal(f"{contract.time.year} ") + text, f"%Y {form}"


def _date(value: ir.Value, contract: Contract) -> ir.DateValue:
    if value.type().is_timestamp() or value.type().is_date():
        return value.cast("date")
    text = value.cast("string")
    if contract.time.format:
        return _strptime_local(*_dated(text, contract)).cast("date")
    return ibis.ifelse(text.re_search(ISO_DATE), text.try_cast("date"), ibis.null("date"))


def _timestamp(value: ir.Value, contract: Contract) -> ir.TimestampValue:
    zone = contract.time.zone
    if value.type().is_timestamp() and value.type().timezone:
        return value.cast(dt.Timestamp("UTC"))
    if value.type().is_timestamp() or value.type().is_date():
        return _in_zone(zone, value.cast("timestamp"))
    text = value.cast("string")
    if contract.time.format:
        if "%z" in contract.time.format.lower():
            return _strptime_offset(*_dated(text, contract))
        return _in_zone(zone, _strptime_local(*_dated(text, contract)))
    iso, offset = (
        text.re_search(ISO_TIME),
        text.re_replace(ISO_OFFSET, "").re_search(ISO_TIME) & text.re_search(r"\d{2}:\d{2}.*[Z+-]"),
    )
    plain = text.replace(",", ".")
    return ibis.cases(
        (iso, _in_zone(zone, plain.try_cast("timestamp"))),
        (offset, plain.try_cast(dt.Timestamp("UTC"))),
        else_=ibis.null(dt.Timestamp("UTC")),
    )


def check_format(contract: Contract) -> None:
    """Raises ContractError when `time.format` is not a strptime format."""
    if contract.time.format:
        try:
            engine().raw_sql("SELECT try_strptime('', ?)", parameters=[contract.time.format])
        except duckdb.Error as error:
            raise ContractError(
                f"{contract.name}: time.format: {contract.time.format!r} is not a strptime format: {error}"
            ) from None
