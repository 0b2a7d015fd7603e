"""What the columns of an unknown log are for, guessed from their names and what they hold, with the evidence for each guess.

Where a guess could go two ways the question is handed to whoever asked (`Ask`): a person, or the answers given with the call.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count

import pandas as pd

from assets import guessed_time
from assets.guessed_time import Ask, Moment
from assets.profile import NAMELESS, TYPED, Column, Profile, kind_of, plain
from models.sections import CONDITION, NAME, in_condition, parse_condition

USERS = re.compile(
    r"user|visitor|customer|member|client|reader|viewer|buyer|account|person|profile|(^|_)uid($|_)|cookie|device_?id"
)
ITEMS = re.compile(
    r"item|product|video|article|movie|song|track|sku|goods|news|content|book|asin|listing|offer|business|recipe|game|post|hotel"
    r"|creative|(^|_)(ad|adgroup|app|doc|page|iid|pid|vid)($|_)"
)
NO_ID = re.compile(
    r"cat|brand|type|name|price|feature|duration|length|age|gender|title|count|num|score|tag|desc|_(ms|time|dt|date)$"
)
HAPPENED = re.compile(r"behav|event|action|activit|interaction|verb|(^|_)(type|op)($|_)")
CODED = re.compile(r"type|op")
"""Columns whose numbers may stand for what happened: only asked about, and only where nothing else says it."""
UNWANTED = re.compile(
    r"skip|dislike|hide|hidden|cancel|return|refund|report|block|remove|unfollow|unlike|uninterest|bounce|dismiss"
    r"|swip\w*_(away|left)"
)
"""Words for what a ranking should lead to less of."""
FEEDBACK = re.compile(
    r"click|(^|_)clk($|_)|like|follow|comment|forward|share|long_view|buy|bought|purchas|cart|conver|order|read|finish|favou?rite|collect"
    r"|download|install|label|watched|played|booked|opened|wish|saved|viewed|listen|replied|reply|react|vote|tapped|swiped"
    rf"|applied|completed|reserved|{UNWANTED.pattern}"
)
RATED = re.compile(r"rating|stars|(^|_)(score|overall)($|_)")
"""Amazon's reviews call their stars 'overall'."""
MEANT = {
    "view": {
        "pv",
        "view",
        "views",
        "click",
        "clicks",
        "impression",
        "pageview",
        "page_view",
        "product_view",
        "view_item",
        "detail",
    },
    "cart": {"cart", "addtocart", "add_to_cart", "add-to-cart", "basket", "atc"},
    "favourite": {"fav", "favorite", "favourite", "wishlist", "collect", "bookmark", "add_to_wishlist"},
    "buy": {"buy", "purchase", "purchased", "transaction", "order", "conversion", "pay", "checkout"},
}
"""Our name of a behaviour → words that logs use for it."""

YES = {"1", "1.0", "true"}
BINARY = {"0", "0.0", "false"} | YES
"""In lower case, which is how an ingest reads them."""
COMPARED = {">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne, ">": operator.gt, "<": operator.lt}
DETERMINED = 0.98
"""Share of users or items with one value each from which on a column says something of them, and not of the moment."""
ITEMLESS, FEW = 0.1, 10
"""Share of a value's rows that name an item, below which it is left out where it has as many rows; and that many."""
MOST_VALUES = 30
"""Of a column that says what happened; one with more says something else."""


@dataclass(frozen=True)
class Roles:
    """Column of the time, the ids, and what happened: a behaviour column, or label conditions, or neither."""

    moment: Moment
    user: str
    item: str
    behaviour: str | None
    labels: dict[str, str]
    """Our name → condition, of an exposure log."""
    evidence: dict[str, str]
    left_out: tuple[str, ...] = ()
    """Values of the behaviour column whose rows are no events of an item."""


def guess(seen: Profile, ask: Ask) -> Roles:
    """The roles of the log's columns. Raises ValueError when a role has no candidate, saying what there is."""
    evidence: dict[str, str] = {}
    moment = guessed_time.guess(seen, ask)
    left = [c for c in seen.columns.values() if c.name != moment.column and c.filled]
    user = _id(left, "user", USERS, ITEMS, ask, evidence)
    left = [c for c in left if c.name != user]
    item = _id(left, "item", ITEMS, USERS, ask, evidence)
    left = [c for c in left if c.name != item]
    if told := ask("labels", "", []):
        return Roles(moment, user, item, None, _told_labels(told, left, seen, evidence), evidence)
    behaviour = _behaviour(left, ask, evidence)
    labels = {} if behaviour else _labels(left, seen, (user, item), evidence)
    coded = [c for c in left if CODED.fullmatch(plain(c.name)) and 2 <= c.distinct <= MOST_VALUES]
    if not behaviour and not labels and coded:
        behaviour = _chosen_behaviour(coded, left, ask, evidence)
    left_out = _itemless(seen, behaviour, item, evidence) if behaviour else ()
    return Roles(moment, user, item, behaviour, labels, evidence, left_out)


# ids


def _id(
    columns: list[Column], entity: str, ours: re.Pattern[str], others: re.Pattern[str], ask: Ask, evidence: dict[str, str]
) -> str:
    if answer := ask(entity, "", []):
        return _answered(answer, entity, columns, evidence)
    # Google Analytics joins two numbers by a point, so an id may look like a measure.
    spoken = re.compile(rf"({ours.pattern}).*id$")
    columns = [c for c in columns if not next(iter(c.common), "").startswith("[")] or columns  # a list names many
    able = [c for c in columns if kind_of(c) != "number" or spoken.search(plain(c.name))] or columns
    named = [c for c in able if ours.search(plain(c.name)) and not NO_ID.search(plain(c.name))]
    named = [c for c in named if c.distinct > 1] or named
    clear = [
        c for c in named if re.search(r"id$|^" + entity + "$", plain(c.name)) and not others.search(plain(c.name))
    ] or named
    if len(clear) == 1:
        first = ", of each row's list the first entry alone" if "/0/" in clear[0].name else ""
        evidence[entity] = f"by its name{first}; {clear[0].distinct:,} different values in {clear[0].filled:,} rows"
        return clear[0].name
    options = clear or [c for c in sorted(able, key=lambda c: -c.distinct) if c.distinct > 20] or able
    if not options:
        raise ValueError(f"no column is left that could name the {entity}")
    # Of a column with a name the name tells more than how many values it has, and it does not name this.
    if len(options) == 1 and options[0].name in map(NAMELESS.format, range(1, 1000)):
        evidence[entity] = f"of the columns left the only one with more than 20 values; {_seen(options[0])}"
        return options[0].name
    told = [(c.name, _seen(c)) for c in options]
    return _answered(ask(entity, f"which column names the {entity}?", told), entity, columns, evidence)


def _answered(answer: str, entity: str, columns: list[Column], evidence: dict[str, str]) -> str:
    chosen = _named(answer, entity, columns)
    evidence[entity] = f"as answered; {chosen.distinct:,} different values in {chosen.filled:,} rows"
    return answer


def _named(answer: str, role: str, columns: list[Column]) -> Column:
    """The column that an answer names."""
    for column in columns:
        if column.name == answer:
            return column
    raise ValueError(f"{role}: '{answer}' is not a column that is left; those are {', '.join(c.name for c in columns)}")


def _seen(column: Column) -> str:
    runs = f", the same as in the row before in {column.follows:.0%}" if column.follows > 0.2 else ""
    return f"{column.distinct:,} different values in {column.filled:,} rows{runs}; for example {next(iter(column.common))!r}"


# what happened


def meaning(value: str) -> str | None:
    """Our name of a raw behaviour value, None for a word that is not known."""
    return next((ours for ours, words in MEANT.items() if value.strip().lower() in words), None)


def _behaviour(columns: list[Column], ask: Ask, evidence: dict[str, str]) -> str | None:
    if ask("behaviour", "", []):
        return _chosen_behaviour([], columns, ask, evidence)
    few = [c for c in columns if 2 <= c.distinct <= MOST_VALUES and kind_of(c) != "number"]
    spoken = [c for c in few if sum(1 for value in c.common if meaning(value)) >= 2]
    named = [c for c in few if HAPPENED.search(plain(c.name)) and not {value.lower() for value in c.common} <= BINARY]
    found = [c for c in spoken if c in named] or spoken or [c for c in named if re.search(r"behav|action|event", plain(c.name))]
    if not found:
        return None
    if len(found) > 1:
        return _chosen_behaviour(found, columns, ask, evidence)
    evidence["behaviour"] = f"{found[0].distinct} different values"
    return found[0].name


def _chosen_behaviour(found: list[Column], columns: list[Column], ask: Ask, evidence: dict[str, str]) -> str | None:
    told = [(c.name, "values " + ", ".join(f"{v} ({n:,})" for v, n in c.common.items())) for c in found]
    none = ("none", "each row is an impression, or there is one behaviour only")
    answer = ask("behaviour", "which column says what happened?", [*told, none])
    if answer == "none":
        return None
    evidence["behaviour"] = f"{_named(answer, 'behaviour', columns).distinct} different values"
    return answer


def _itemless(seen: Profile, behaviour: str, item: str, evidence: dict[str, str]) -> tuple[str, ...]:
    """The values of which next to no row names an item, as searches and logins do; none where that is all there are."""
    told = seen.rows[item].notna().groupby(seen.rows[behaviour]).agg(["size", "sum", "mean"])
    aside = told[(told["mean"] < ITEMLESS) & (told["size"] >= FEW)]
    if not len(aside) or len(aside) == len(told):
        return ()
    rows, name = int(aside["size"].sum()), int(aside["sum"].sum())
    evidence["left_out"] = f"{rows:,} of the rows seen, of which {name:,} name an item: they are events of none"
    return tuple(map(str, aside.index))


def determined(rows: pd.DataFrame, key: str, column: str) -> float:
    """Share of the keys seen more than once whose values of a column all agree; 0 where too few were.

    Of those alone that have another value than the usual one: nearly all users agree on what hardly ever happens.
    """
    pairs = rows[[key, column]].dropna()
    if pairs.empty:
        return 0.0
    unusual = (pairs[column] != pairs[column].mode()[0]).groupby(pairs[key]).any()
    groups = pairs.groupby(key)[column].agg(["size", "nunique"])
    more = groups[(groups["size"] > 1) & unusual]
    return float((more["nunique"] == 1).mean()) if len(more) >= 10 else 0.0


def _told_labels(told: str, columns: list[Column], seen: Profile, evidence: dict[str, str]) -> dict[str, str]:
    """Labels as a person names them: columns or conditions ('watch_ratio >= 2'), with commas between."""
    found: dict[str, str] = {}
    for text in map(str.strip, told.split(",")):
        condition = _told_condition(text, [c.name for c in columns])
        if condition is None:
            left = ", ".join(sorted(c.name for c in columns))
            raise ValueError(
                f"labels: '{text}' is neither a column that is left nor a comparison of one ('stars >= 4'); those are {left}"
            )
        column, sign, number = parse_condition(condition)
        name = _label_name(column, found)
        written = seen.rows[column].str.lower().replace({"true": "1", "false": "0"})
        values = pd.to_numeric(written, errors="coerce")
        share = (COMPARED[sign](values, number) & values.notna()).mean()
        if not 0 < share < 1:
            held = "none" if share == 0 else "all"
            raise ValueError(
                f"labels: '{condition}' holds in {held} of the {len(values):,} rows seen, so nothing can be learned of it; "
                f"'{column}' has {values.nunique():,} numbers, {values.min():g} to {values.max():g}"
            )
        found[name], evidence[f"label {name}"] = condition, f"as answered; {share:.2%} of the rows seen"
    return found


def _told_condition(text: str, columns: Sequence[str]) -> str | None:
    """The condition that a column or a comparison of one says; RecBole's types behind a column's name may be left out."""
    if text in columns:
        return in_condition(text)
    if not (match := CONDITION.match(text)):
        return None
    said = parse_condition(text)[0]
    column = said if said in columns else next((c for c in columns if TYPED.sub("", c) == said), None)
    return None if column is None else " ".join([in_condition(column), *filter(None, match.groups()[2:])])


def _label_name(column: str, found: dict[str, str]) -> str:
    """A name for a label that none has yet."""
    short = plain(column.rsplit("/", 1)[-1]).removeprefix("is_").removeprefix("has_")
    return free_name([short, plain(column)], found)


def free_name(wanted: Sequence[str], taken: Collection[str]) -> str:
    """The first of the names, or one like the first, that a contract allows and that is not taken."""
    first = wanted[0] if wanted[0][:1].isalpha() else f"label_{wanted[0]}".rstrip("_")
    names = chain([first, *wanted[1:]], (f"{first[:36]}_{n}" for n in count(2)))
    return next(name for name in names if NAME.match(name) and name not in taken and name != "mean")


def _labels(columns: list[Column], seen: Profile, ids: tuple[str, str], evidence: dict[str, str]) -> dict[str, str]:
    """Of what sounds like feedback all but what a user or an item has once for all."""
    found: dict[str, str] = {}
    for column in columns:
        name = plain(column.name)
        empty = 1 - column.filled / len(seen.rows)
        if binary(column, empty) and FEEDBACK.search(name) and not name.startswith("non"):
            condition, rate = in_condition(column.name), positive(seen.rows[column.name])
        elif RATED.search(name) and 2 < column.distinct <= 20 and column.number >= 0.99:
            high = pd.to_numeric(seen.rows[column.name], errors="coerce")
            least = 0.8 * float(high.max())
            number = f"{least:f}".rstrip("0").rstrip(".")
            condition, rate = f"{in_condition(column.name)} >= {number}", float((high >= least).mean())
        else:
            continue
        if max(determined(seen.rows, key, column.name) for key in ids) >= DETERMINED:
            continue
        ours = _label_name(column.name, found)
        found[ours] = condition
        told = f"; nothing is written in {empty:.2%}, which is read as no" if empty else ""
        evidence[f"label {ours}"] = f"{rate:.2%} of the rows seen{told}"
    return found


def binary(column: Column, empty: float) -> bool:
    """Whether a column says yes or no: two values, or only yes and nothing."""
    values = {value.lower() for value in column.common}
    yes = values <= YES and column.distinct == 1 and empty > 0
    return yes or (values <= BINARY and column.distinct == 2)


def positive(values: pd.Series) -> float:
    """The share of yes in a column that `binary` says yes or no of."""
    return float(values.str.lower().isin(YES).mean())
