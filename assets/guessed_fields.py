"""What the columns of an unknown log are to a model: features of items, users or the moment, or left out, with the evidence."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path

import pandas as pd

from assets import roles
from assets.profile import Column, Profile, kind_of, plain
from assets.roles import Roles
from models.contract import RESERVED
from models.sections import in_condition, parse_condition

SAFE = re.compile(r"(^|_)(position|pos|rank|slot|tab|device|platform|channel|page|os)($|_)")
MEASURES = re.compile(r"price|cost|duration|length|words|age$|amount|size|score|rating|_ms$|seconds|weight")
SEPARATORS = "|;,"
COMMA = r"-?[\d.]*\d,\d+"


@dataclass(frozen=True)
class Feature:
    """One line of a features section: our name, its TOML value and the evidence."""

    name: str
    value: str
    evidence: str


@dataclass
class Features:
    item: list[Feature] = field(default_factory=list)
    user: list[Feature] = field(default_factory=list)
    context: list[Feature] = field(default_factory=list)
    left: list[Feature] = field(default_factory=list)


def guess(seen: Profile, found: Roles) -> Features:
    """What the columns of a log that have no role are to the model."""
    out, taken = Features(), {found.moment.column, found.user, found.item, found.behaviour}
    taken |= {parse_condition(condition)[0] for condition in found.labels.values()}
    for column in seen.columns.values():
        if column.name in taken:
            continue
        if column.distinct <= 1:
            out.left.append(Feature(column.name, "", "one value only" if column.distinct else "nothing written"))
            continue
        by_item, by_user = (roles.determined(seen.rows, key, column.name) for key in (found.item, found.user))
        if max(by_item, by_user) >= roles.DETERMINED:
            entity, side, share = ("item", out.item, by_item) if by_item >= by_user else ("user", out.user, by_user)
            _add(
                side, out.left, column, seen.rows[column.name], f"the same in {share:.0%} of the {entity}s seen more than once"
            )
        elif SAFE.search(plain(column.name)) and column.distinct <= 1000:
            _add(out.context, out.left, column, seen.rows[column.name], "of the moment, by its name")
        else:
            out.left.append(Feature(column.name, "", _unknown(column, seen, found)))
    return out


def _unknown(column: Column, seen: Profile, found: Roles) -> str:
    """What may be done with a column of which nothing tells whether it is known before the feedback."""
    binary = roles.binary(column, 1 - column.filled / len(seen.rows))
    if found.labels and binary:
        name, when = ours(column.name), quoted(in_condition(column.name))
        return (
            f"yes in {roles.positive(seen.rows[column.name]):.2%} of the rows seen; if it is feedback: "
            f"[behaviours.{name}] when = {when} and [tasks.{name}] label = {when}; if known before: [context.columns]"
        )
    told = f"changes from row to row ({column.distinct:,} values); if known before the feedback: [context.columns]"
    if found.behaviour or found.labels or column.number < 0.99:
        return told
    label = in_condition(column.name) + ("" if binary else " >= …")
    return f'{told}; if it is feedback, draft again with --answer "labels={label}"'


def _add(side: list[Feature], left: list[Feature], column: Column, values: pd.Series, evidence: str) -> None:
    kind, name = kind_of(column), ours(column.name)
    words = column.name.endswith(":token_seq")  # RecBole's; elsewhere blanks stand in titles and names
    commas = kind == "text" and values.dropna().str.fullmatch(COMMA).mean() > 0.9
    separator = (" " if words else _separator(values)) if kind == "text" and not commas else None
    told = f"{evidence}; {column.distinct:,} values"
    if commas:
        told += "; a comma is no decimal point here, so numbers written with one are names"
    if kind == "id" and column.distinct > 20 and (MEASURES.search(plain(column.name)) or _cents(column.name, values)):
        kind = "number"
    # Of a feature a text costs little, and a row that is refused much.
    spoiled = kind == "id" and (column.whole < 1 or _zeros(values))
    kind = "text" if spoiled else kind
    if not spoiled and kind == "text" and separator is None and column.distinct > max(0.5 * column.filled, 1000):
        left.append(Feature(column.name, "", f"nearly a text of its own in each row ({column.distinct:,} values)"))
        return
    parts = [f"column = {quoted(column.name)}", f'kind = "{kind}"']
    if separator:
        parts.append(f"separator = {quoted(separator)}")
    value = quoted(column.name) if kind == "id" else "{ " + ", ".join(parts) + " }"
    side.append(Feature(name, value, told))


def _cents(name: str, values: pd.Series) -> bool:
    """Whether whole numbers stand there as 19.00, as amounts do and what names something does not (12.0 is an export of 12)."""
    return not plain(name).endswith("id") and values.dropna().str.contains(r"\.0{2,}$").mean() > 0.5


def is_text(seen: Profile, column: str) -> bool:
    return kind_of(seen.columns[column]) != "id" or _zeros(seen.rows[column])


def _zeros(values: pd.Series) -> bool:
    """Whether whole numbers begin with a 0, which as numbers they would lose."""
    return bool(values.dropna().str.match(r"0\d").any())


def _separator(values: pd.Series) -> str | None:
    """What cuts a list of ids or words: there in many values, with entries that come again and again."""
    texts = values.dropna().drop_duplicates().head(2000)
    if texts.str.startswith("[").mean() > 0.9:
        return ","
    for mark in SEPARATORS:
        entries = texts.str.split(mark, regex=False)
        if texts.str.contains(mark, regex=False).mean() > 0.2 and entries.explode().nunique() < 0.5 * entries.str.len().sum():
            return mark
    return None


def ours(column: str) -> str:
    """A name of ours for a source column."""
    name = re.sub(r"_id$", "", plain(column.rsplit("/", 1)[-1]))[:40] or "field"
    name = name if name[0].isalpha() else f"c_{name}"
    return f"{name}_of_row" if name in RESERVED else name


# side tables


@dataclass(frozen=True)
class Table:
    """A second file of items or users."""

    entity: str
    file: str
    seen: Profile
    key: str
    features: list[str]
    evidence: str


def table(source: str, side: Profile, log: Profile, found: Roles, features: Features) -> Table | None:
    """The side table that a file is, its features added to `features`; None when nothing in it is one of the log's ids."""
    best: tuple[float, str, Column] | None = None
    for entity, ids in (("item", found.item), ("user", found.user)):
        known = set(log.rows[ids].dropna())
        for candidate in side.columns.values():
            values = set(side.rows[candidate.name].dropna())
            share = len(known & values) / max(len(known), 1)
            if candidate.distinct > 0.95 * candidate.filled and share > 0.3 and (best is None or share > best[0]):
                best = (share, entity, candidate)
    if best is None:
        return None
    share, entity, key = best
    own: list[Feature] = []
    for column in side.columns.values():
        if column.name != key.name and column.distinct > 1:
            _add(own, features.left, column, side.rows[column.name], f"from {side.files[0].name}")
    target = features.item if entity == "item" else features.user
    taken = {f.name for f in [*features.item, *features.user, *features.context]}
    own = [f for f in own if f.name not in taken]
    if not own:
        return None
    target += own
    folder = Path(source).expanduser()
    base = folder.absolute() if folder.is_dir() else log.files[0].parent
    file = Path(relpath(side.files[0], base)).as_posix() if len(side.files) == 1 else f"*{''.join(side.files[0].suffixes)}"
    evidence = f"its '{key.name}' holds {share:.0%} of the {entity}s seen in the log"
    return Table(entity, file, side, key.name, [f.name for f in own], evidence)


def quoted(text: str) -> str:
    """A TOML basic string, which escapes what JSON does, and one character more."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
