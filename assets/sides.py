"""Side tables: what a second file says of items or users, joined to the log's rows when a day's events are made.

A table says how things are when it is read: it has no time of its own, so a changed one renews every day (an attribute that
moves, such as a price, belongs into the log). Several files are read in the order of their names; a key told again is told
anew, and the last row counts. Rows in = used + superseded + quarantined.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import ibis
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from assets import lake, parquet, parsing, reading, splitting, validation
from assets.limits import REMEDY
from assets.validation import Layout
from models.contract import Contract
from models.home import Home
from models.sections import Side

Entity = Literal["user", "item"]


@dataclass(frozen=True)
class Told:
    """One side table: `origin` digests what it was made from and under, `content` is its hash; the counts of its rows."""

    origin: str
    content: str
    files: list[str]
    rows_in: int
    used: int
    superseded: int
    by_rule: dict[str, int]


def of(contract: Contract) -> dict[Entity, Side]:
    """The side tables that a contract has."""
    found: dict[Entity, Side | None] = {"user": contract.user_table, "item": contract.item_table}
    return {entity: side for entity, side in found.items() if side}


def read(home: Home, entity: Entity) -> Told | None:
    """What a side table was made from, None when there is none."""
    path = home.side(entity) / "side.json"
    return Told(**json.loads(path.read_text())) if path.is_file() else None


def build(home: Home, contract: Contract, source: str) -> bool:
    """Bring the side tables up to date with the files beside the log at `source`; whether any was made anew.

    Raises ValueError when a file is not there or cannot be used, or more of its rows are bad than the contract allows.
    """
    worked = False
    for entity, side in of(contract).items():
        part = f"{entity}_table"
        files = parsing.beside(source, part, side, contract)
        terms = [
            side.model_dump(mode="json"),
            contract.columns.text,
            [contract.features[n].model_dump() for n in side.features],
        ]
        code = validation.code() + lake.code_hash("assets/sides.py", "assets/splitting.py")
        told = json.dumps([[lake.content_hash(p) for p in files], terms, code, contract.validation.max_bad_share])
        origin = hashlib.sha256(told.encode()).hexdigest()[:16]
        before = read(home, entity)
        if before is None or before.origin != origin:
            _make(home, contract, entity, side, files, origin)
            worked = True
    return worked


def contents(home: Home, contract: Contract) -> dict[str, str]:
    """What the events depend on: table → content hash. Raises ValueError when a table was not read yet."""
    return {f"{entity}_table": _require(home, entity).content for entity in of(contract)}


def tables(home: Home, contract: Contract) -> dict[Entity, Path]:
    """The Parquet of each table: the key under our name, then its features."""
    return {entity: home.side(entity) / "table.parquet" for entity in of(contract)}


def bad(home: Home, contract: Contract) -> dict[str, tuple[str, str]]:
    """Parquet of quarantined rows → the files they are from, and the origin that stands for their content."""
    told = {entity: _require(home, entity) for entity in of(contract)}
    return {str(home.side(e) / "bad.parquet"): (", ".join(t.files), t.origin) for e, t in told.items() if t.by_rule}


def _require(home: Home, entity: Entity) -> Told:
    told = read(home, entity)
    if told is None:
        raise ValueError(f"{entity}_table of the contract was not read yet; materialise log_files again")
    return told


def _make(home: Home, contract: Contract, entity: Entity, side: Side, files: list[Path], origin: str) -> None:
    layout = Layout.of_side(contract, entity, side)
    with lake.replacing(home.side(entity)) as folder, splitting.spilling(home) as (con, scratch):
        folder.mkdir()
        rows_in = 0
        for place, path in enumerate(files):
            (own := scratch / f"{place:06}").mkdir()
            try:
                rows_in += splitting.stage(con, layout, path, reading.Span.of(contract, contract.calendar.first_day), own)[0]
            except parsing.Refused as refusal:
                raise ValueError(
                    f"{parsing.shown(path)} ({entity}_table): {refusal}. Deliver it again, or change the contract"
                ) from None
        used = _settle(con, layout, entity, scratch, folder / "table.parquet")
        by_rule = _gather_bad(con, scratch, folder / "bad.parquet")
        wrong = sum(by_rule.values())
        if wrong > contract.validation.max_bad_share * rows_in:
            most = max(sorted(by_rule), key=lambda rule: by_rule[rule])
            example = con.read_parquet(folder / "bad.parquet").filter(ibis._.rule == most).limit(1).to_pyarrow().to_pylist()[0]
            names = ", ".join(map(parsing.shown, files))
            raise ValueError(
                f"{entity}_table: {wrong} of {rows_in} rows of {names} are bad ({wrong / rows_in:.1%}), "
                f"and validation.max_bad_share is {contract.validation.max_bad_share:.1%}; most often broken is '{most}', "
                f"for example row {example['number']}: {example['detail']}. {REMEDY}"
            )
        content = lake.content_hash(folder / "table.parquet")
        told = Told(origin, content, [parsing.shown(p) for p in files], rows_in, used, rows_in - wrong - used, by_rule)
        lake.write_json(folder / "side.json", asdict(told))


def _settle(con: Backend, layout: Layout, entity: Entity, scratch: Path, target: Path) -> int:
    """Write the last good row of every key, ordered by key; their number."""
    parts, kept = sorted(scratch.glob("*/rows/*/part=all/*.parquet")), layout.kept()
    rows = None
    if parts:
        told = con.read_parquet(parts, hive_partitioning=False, filename=True)
        folder = told.filename.re_extract(r"/(\d{6})/rows/", 1)
        place = ibis.row_number().over(group_by=entity, order_by=[folder.desc(), told.number.desc()])
        rows = told.mutate(place=place).filter(lambda t: t.place == 0).order_by(entity)
    return parquet.write(con, rows, validation.arrow_schema(kept), target)


def _gather_bad(con: Backend, scratch: Path, target: Path) -> dict[str, int]:
    parts = sorted(scratch.glob("*/rows/*/part=bad/*.parquet"))
    told = con.read_parquet(parts, hive_partitioning=False, filename=True).order_by("filename", "number") if parts else None
    parquet.write(con, told, ibis.schema(splitting.BAD).to_pyarrow(), target)
    return dict(Counter(pq.read_table(target, columns=["rule"], partitioning=None).column("rule").to_pylist()))
