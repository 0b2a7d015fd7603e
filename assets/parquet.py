"""Write a query's result as Parquet whose bytes depend on its rows alone.

The engine's own writer marks a column 'required' by what its planner happens to know, so that the same rows reached by
another plan become other bytes. Here the schema, the row groups and the compression are fixed, and pyarrow writes.
"""

from __future__ import annotations

from pathlib import Path

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

ROW_GROUP = 1 << 17


def write(con: Backend, rows: ir.Table | None, schema: pa.Schema, target: Path) -> int:
    """Write the ordered `rows` (None: no row) as `target`, one row group in memory at a time; the number of rows.

    `rows` may not hold memtables: they would have to be registered first.
    """
    written, waiting, held = 0, [], 0
    with pq.ParquetWriter(target, schema, compression="zstd") as file:
        # Not Ibis' to_pyarrow_batches: version 12 calls a function that DuckDB 2.0 no longer has.
        told = () if rows is None else con.con.sql(con.compile(rows.select(schema.names))).to_arrow_reader(ROW_GROUP)
        for batch in told:
            waiting.append(batch)
            held += batch.num_rows
            if held >= ROW_GROUP:
                table = pa.Table.from_batches(waiting)
                whole = held - held % ROW_GROUP
                file.write_table(table.slice(0, whole).cast(schema), row_group_size=ROW_GROUP)
                waiting, held, written = table.slice(whole).to_batches(), held - whole, written + whole
        if held:
            file.write_table(pa.Table.from_batches(waiting).cast(schema), row_group_size=ROW_GROUP)
    return written + held
