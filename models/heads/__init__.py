"""Heads: from a bottom's streams to the tasks' logits. A file is one, of its own name; its class is declared as `HEAD`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.parts import Head


def named(name: str) -> type[Head]:
    """The head of this name, one of `models.names.parts("heads")`."""
    head: type[Head] = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").HEAD
    return head
