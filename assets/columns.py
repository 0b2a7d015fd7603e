"""The columns of the lake's tables as Dagster's UI shows them: name and type from the file itself, and what each one means."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq

from models.contract import Contract

MEANINGS = {
    "user": "Who, by the log's own id",
    "item": "What, by the log's own id",
    "time": "When, in milliseconds since 1970 UTC",
    "behaviour": "What the user did, in the contract's words",
    "action": "Which action, by its place in the contract's behaviours",
    "sampled": "Drawn as a negative: nobody is known to have seen it",
    "request_id": "Which ranking: rows of one request were answered together",
    "model": "Full tag of the model that answered",
    "place": "Place of the item in the request, from 0",
    "rank": "Place of the item in the answer, from 1",
    "score": "Combined score that the ranking is by",
    "unknown_user": "The model did not know the user",
    "unknown_items": "How many items of the request the model did not know",
}
"""Columns that are called the same in every data set."""

FAMILIES = {
    "label_": "Whether {} followed within its horizon: 1 yes, 0 no, -1 cannot be said",
    "p_": "Probability of {} that was answered",
    "history_length_": "How many events of {} the user's history held",
}
"""Columns of which there is one a task or one an action, by the beginning of their name."""


def shown(contract: Contract, path: Path) -> dict[str, dg.MetadataValue]:
    """Metadata of a materialization whose Parquet lies at `path`: its columns, under the key that the UI looks for."""
    columns = [
        dg.TableColumn(field.name, str(field.type), description=meaning(contract, field.name)) for field in pq.read_schema(path)
    ]
    return {"dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns))}


def meaning(contract: Contract, name: str) -> str:
    """What a column of this name holds, in a few words."""
    if name in MEANINGS:
        return MEANINGS[name]
    for beginning, words in FAMILIES.items():
        if name.startswith(beginning):
            return words.format(name.removeprefix(beginning))
    kinds = {
        "Feature of the item": contract.item_features,
        "Feature of the user": contract.user_features,
        "Circumstance of the request": contract.context_fields,
    }
    return next((kind for kind, names in kinds.items() if name in names), "As the log has it")
