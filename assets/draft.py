"""A draft contract for a log that nobody has described yet: every guess a line of TOML, its evidence a comment beside it.

It is a start for a person, not a verdict: what the rows cannot tell (a time zone above all) is said to be a guess, and what may
only be known after the fact is left out of the model's inputs until somebody who knows the log lets it in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pandas as pd

from assets import guessed_days, guessed_fields, profile, roles
from assets.guessed_days import Days
from assets.guessed_fields import Features, Table, is_text, ours, quoted
from assets.guessed_time import Ask, Moment
from assets.profile import Profile, kind_of
from assets.roles import Roles
from models.sections import CONDITION, Source, in_condition, parse_condition

RARE = 50
LONG, SHORT = 50, 20
HISTORY = 30
"""Days that a history reaches back at least, where the log has them."""


def draft(source: str, name: str, ask: Ask) -> tuple[str, list[str]]:
    """The TOML of a contract for the log at `source`, and what only who knows the log can mend, in sentences.

    Raises ValueError when it cannot be one, saying why.
    """
    kinds = profile.logs(source)
    seen = profile.profile(kinds[0])
    found = roles.guess(seen, ask)
    aside = (found.behaviour, found.left_out) if found.behaviour and found.left_out else None
    days = guessed_days.guess(seen, found.moment, found.user, ask, aside)
    features = guessed_fields.guess(seen, found)
    named = {file for files in kinds for file in files}
    near = profile.neighbours(seen, {found.user: roles.USERS, found.item: roles.ITEMS})
    others = [*kinds[1:], *([path] for path in near if path not in named)]
    tables, unread = [], []
    for files in others:
        if table := guessed_fields.table(source, profile.profile(files), seen, found, features):
            tables.append(table)
        elif files in kinds:
            unread += files
    asides = _asides(seen, found, features)
    if unread:
        shown = ", ".join(path.name for path in unread[:3]) + (" …" if len(unread) > 3 else "")
        asides.append(f"{len(unread)} file(s) have other columns and are no part of this draft: {shown}")
    return "\n".join(_toml(name, seen, found, days, features, tables)) + "\n", asides


def _asides(seen: Profile, found: Roles, features: Features) -> list[str]:
    """What is not as a log should be and no program can put right."""
    items = seen.columns[found.item]
    if items.distinct > 0.9 * items.filled > 900:
        return [
            f"'{found.item}' has another value in nearly every row ({items.distinct:,} in {items.filled:,}), so no item comes "
            "again and nothing can be learned of one. Is it the right column? A list of items in a row is not read as items"
        ]
    if found.behaviour:
        kept = {roles.meaning(value) for value in _counts(seen, found).index}
        lost = [value for value in found.left_out if (meant := roles.meaning(value)) and meant not in kept]
        if lost:
            return [
                f"next to no row of {' and '.join(map(repr, lost))} names an item in '{found.item}', so they are left out and "
                "nothing can be learned of them; is it written in another column, or in another file?"
            ]
    if found.behaviour or found.labels:
        return []
    told = []
    for column in (seen.columns[feature.name] for feature in features.left if feature.name in seen.columns):
        if column.number >= 0.99 and 2 < column.distinct <= 20:
            values = pd.to_numeric(seen.rows[column.name], errors="coerce")
            told.append(
                f"nothing in the log is known to be feedback, so every row is an event. {column.name} ({column.distinct} "
                f"values, {values.min():g} to {values.max():g}) may be a rating; if it is, delete this draft and draft again "
                f'with --answer "labels={in_condition(column.name)} >= …"'
            )
    return told


def _toml(name: str, seen: Profile, found: Roles, days: Days, features: Features, tables: list[Table]) -> Iterator[str]:
    source, moment = seen.source, found.moment
    told = f"{len(seen.files)} file(s), {seen.bytes / 1e6:,.1f} MB, {days.total:,} rows with a readable time"
    yield f"# Drafted from {', '.join(p.name for p in seen.files[:3])}{' …' if len(seen.files) > 3 else ''}: {told};"
    yield f"# columns were judged by the first {len(seen.rows):,} rows. Read every guess, mend what is wrong, run ./dtrn check"
    yield f"name = {quoted(name)}"
    yield f'shape = "{"exposures" if found.labels else "events"}"'.ljust(34) + _shape(found)
    yield from _source("source", source)
    yield "\n[columns]"
    text = [e for e in ("user", "item") if is_text(seen, getattr(found, e))]
    spoken = any(kind_of(seen.columns[getattr(found, e)]) != "id" for e in text)
    for entity in ("user", "item"):
        yield _line(entity, quoted(getattr(found, entity)), found.evidence[entity])
    if found.behaviour:
        yield _line("behaviour", quoted(found.behaviour), found.evidence["behaviour"])
    if found.left_out:
        yield _line("left_out", _listed(found.left_out), found.evidence["left_out"])
    if text:
        why = "these ids are not whole numbers" if spoken else "some of these ids begin with a 0"
        yield _line("text", _listed(text), why)
    yield "\n[time]"
    yield _line("column", quoted(moment.column), moment.evidence)
    yield f'kind = "{moment.kind}"'
    if moment.format:
        yield f"format = {quoted(moment.format)}"
    if moment.format == "%m%d":
        yield _line("year", str(days.first.year), "as answered")
    yield _line("zone", quoted(days.zone), days.why)
    yield from _calendar(days)
    yield from _feature_lines(seen, features, moment)
    for table in tables:
        yield from _source(
            f"{table.entity}_table", table.seen.source, [f"file = {quoted(table.file)}", f"key = {quoted(table.key)}"]
        )
        yield _line("features", _listed(table.features), table.evidence)
    yield from _what_happened(seen, found)
    length = (days.last - days.first).days + 1
    yield "\n[histories]"
    yield _line("days", str(min(length, max(HISTORY, days.window))), "how far back a history reaches")
    repeated = int(seen.rows.duplicated().sum())
    kept = "real" if moment.kind == "date" else "duplicates"
    yield "\n[validation]"
    yield _line(
        "repeats", f'"{kept}"', f"{repeated:,} of the rows seen stand there twice; 'real' counts both, 'duplicates' one"
    )
    yield "\n[training]"
    yield _line("window_days", str(days.window), f"about {days.window * days.a_day:,.0f} rows")
    if days.judged > 1:
        people = f"; the last {days.judged} have {days.people:,} users" if days.people is not None else ""
        told = f"about {days.judged * days.a_day:,.0f} rows: a day alone has few people to judge a model by{people}"
        yield _line("judged_days", str(days.judged), told)
    if days.checks:
        yield "\n[checks]                          # wide enough for this log; narrower ones find more"
        yield from (f"{name} = {limits}" for name, limits in days.checks.items())


def _shape(found: Roles) -> str:
    if found.labels:
        return f"# label columns ({', '.join(found.labels)}): a row is an impression with its feedback"
    return (
        f"# '{found.behaviour}' says what happened" if found.behaviour else "# neither behaviour nor labels: one kind of event"
    )


def _source(part: str, source: Source, more: Sequence[str] = ()) -> Iterator[str]:
    yield f"\n[{part}]"
    yield from more
    yield f'format = "{source.format}"'
    if source.format == "csv":
        if source.delimiter != ",":
            yield f"delimiter = {quoted(source.delimiter)}"
        if not source.header:
            yield "header = false                    # its first line is a row like all others"
            yield f"columns = {_listed(source.columns)}"


def _calendar(days: Days) -> Iterator[str]:
    yield "\n[calendar]"
    yield f"# rows a day: {days.volume[0]:,} to {days.volume[1]:,}"
    yield f"first_day = {days.first}"
    later = f"; {days.later:,} rows after it would be quarantined" if days.later else ""
    yield _line("last_day", str(days.last), f"a log that goes on has no last_day: remove this line{later}")
    if days.accept_from:
        yield _line(
            "accept_from", str(days.accept_from), f"{days.earlier:,} rows stand before first_day: history, no days of their own"
        )


def _feature_lines(seen: Profile, features: Features, moment: Moment) -> Iterator[str]:
    for title, side in (("item_features", features.item), ("user_features", features.user)):
        if side:
            yield f"\n[{title}]"
            yield from (_line(f.name, f.value, f.evidence) for f in side)
    yield "\n[context]"
    yield 'derived = ["weekday"]' if moment.kind == "date" else 'derived = ["hour", "weekday"]'
    if features.context:
        yield "\n[context.columns]"
        yield from (_line(f.name, f.value, f.evidence) for f in features.context)
    if features.left:
        yield "# left out:"
        yield from (f"#   {f.name}: {f.evidence}" for f in features.left)


def _what_happened(seen: Profile, found: Roles) -> Iterator[str]:
    if found.labels:
        said, alone = dict(found.labels), all(map(roles.UNWANTED.search, found.labels))
        for place, (name, condition) in enumerate(found.labels.items()):
            yield f"\n[behaviours.{name}]"
            yield _line("when", quoted(condition), found.evidence[f"label {name}"])
            yield f"length = {LONG if place == 0 else SHORT}"
            if (low := _low(condition, seen, alone=alone)) and low not in said.values():
                said[(own := roles.free_name([f"{'not' if alone else 'low'}_{name}"], said))] = low
                yield f"\n[behaviours.{own}]"
                other = "what was not" if alone else "what was rated lower"
                yield _line("when", quoted(low), f"{other}, so that histories tell of it too")
                yield f"length = {LONG if place == 0 else SHORT}"
        for name, condition in found.labels.items():
            yield f"\n[tasks.{name}]\nlabel = {quoted(condition)}"
        yield from _weights(list(found.labels), [n for n, c in found.labels.items() if parse_condition(c)[1] in ("<", "<=")])
        return
    named: dict[str, list[tuple[str, int]]] = {"event": []}
    if found.behaviour:
        named = {}
        counts = _counts(seen, found)
        for value, count in zip(counts.index.tolist(), counts.tolist(), strict=True):
            named.setdefault(roles.meaning(value) or ours(f"{value if value[:1].isalpha() else f'action_{value}'}"), []).append(
                (value, count)
            )
    most = max((sum(n for _, n in values) for values in named.values()), default=0)
    for name, values in named.items():
        yield f"\n[behaviours.{name}]"
        count = sum(n for _, n in values)
        if values:
            yield _line("values", _listed([v for v, _ in values]), f"{count:,} of the rows seen")
        yield f"length = {LONG if count == most else SHORT}"
    tasks = []
    for name, values in named.items():
        if values and sum(n for _, n in values) < min(RARE, most):
            yield f"\n# no task for {name}: too rare to learn from in the rows seen"
            continue
        tasks.append(name)
        yield f"\n[tasks.{name}]\nbehaviours = [{quoted(name)}]\nhorizon_hours = 24"
    yield from _weights(tasks)


def _counts(seen: Profile, found: Roles) -> pd.Series:
    """Rows by value of the behaviour column, but for what is left out. Raises ValueError when there are too many values."""
    counts = seen.rows[found.behaviour].value_counts().drop(list(found.left_out))
    if len(counts) > roles.MOST_VALUES:
        raise ValueError(
            f"behaviour: '{found.behaviour}' has {len(counts):,} different values, and what happened is one of at most "
            f"{roles.MOST_VALUES}; is it another column? --answer behaviour=none where each row is an impression or of one kind"
        )
    return counts


def _low(condition: str, seen: Profile, *, alone: bool) -> str | None:
    """The condition of what a graded label leaves out, None of a label that says yes or no.

    alone: whether nothing but what is unwanted is a label; then what it is not is all that was wanted.
    """
    match = CONDITION.match(condition)
    assert match, condition
    column, sign, number = parse_condition(condition)[0], match[3], match[4]  # the number as it is written
    known = seen.columns[column]
    if alone and sign is None and known.distinct == 2:
        return f"{in_condition(column)} == 0"
    if sign not in (">=", ">") or roles.binary(known, 1 - known.filled / len(seen.rows)):
        return None
    return f"{in_condition(column)} {'<' if sign == '>=' else '<='} {number}"


def _weights(tasks: Sequence[str], low: Collection[str] = ()) -> Iterator[str]:
    yield "\n[serving.weights]                 # of the tasks in the score that /rank sorts by: yours to say"
    for name in tasks:
        unwanted = "sounds unwanted" if roles.UNWANTED.search(name) else "a low value" if name in low else ""
        yield _line(name, "-1", f"{unwanted}: taken off the score") if unwanted else f"{name} = 1"


def _listed(values: Sequence[str]) -> str:
    return f"[{', '.join(map(quoted, values))}]"


def _line(key: str, value: str, evidence: str) -> str:
    return f"{key} = {value}  ".ljust(34) + f"# {evidence}"
