"""Prediction lines for tests, as a running service writes them."""

from __future__ import annotations

import json
from typing import Any

from models.contract import Contract
from models.home import Home


def line(terms: Contract, request_id: str, time: int, user: int, items: list[int], **changes: Any) -> dict[str, Any]:
    """One ranking: item i of the request gets score and probabilities (i + 1) / 10."""
    rising = [(place + 1) / 10 for place in range(len(items))]
    return {
        "request_id": request_id,
        "time": time,
        "logged": time + 5,
        "model": "dtrn-tiny:1",
        "user": user,
        "user_features": [70 + n for n in range(len(terms.user_features))],
        "item": items,
        "item_features": [[item * 10 + n for n in range(len(terms.item_features))] for item in items],
        "context": [list(range(len(terms.context_fields))) for _ in items],
        "score": rising,
        "probability": dict.fromkeys(terms.task_names, rising),
        "history_length": {action: place for place, action in enumerate(terms.actions)},
        "unknown_user": False,
        "unknown_items": 0,
    } | changes


def write(home: Home, name: str, lines: list[dict[str, Any]], tail: str = "") -> None:
    """A process's inbox file; `tail` is what it was writing when it was killed."""
    home.prediction_inbox.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(told) + "\n" for told in lines)
    (home.prediction_inbox / f"{name}.jsonl").write_text(text + tail)
