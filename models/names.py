"""What the neural models are called: `bottom+head` (`dtrn+ple`), some of them with a short name, and which parts there are.

A part is a file of `models/bottoms` or `models/heads`, named as the file is, with `-` for `_`; a bottom may also be a variant
of such a file. They are only listed here: the contract asks which names there are, and whoever reads a contract must neither
wait for torch nor depend on a model's code.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from difflib import get_close_matches
from typing import Any

PLAIN = {"matches": False, "statistics": False}
"""Without what is told of a candidate beside its embeddings: the papers' inputs."""

VARIANTS: dict[str, dict[str, Any]] = {
    "dtrn-plain": {"bottom": "dtrn", **PLAIN},
    "dmt-plain": {"bottom": "dmt", **PLAIN},
    "pooled-plain": {"bottom": "pooled", **PLAIN},
    "dtrn-tim": {"bottom": "dtrn", "refinement": "none"},
    "dtrn-trm": {"bottom": "dtrn", "interest": "shared"},
    "dtrn-shared-trm": {"bottom": "dtrn", "refinement": "shared"},
    "dtrn-task-only": {"bottom": "dtrn", "interest": "task"},
    "dtrn-action-only": {"bottom": "dtrn", "interest": "action"},
    "dtrn-separate": {"bottom": "dtrn", "interest": "separate"},
    "dmt-senet": {"bottom": "dtrn", "interest": "dmt", "refinement": "shared"},
    "dmt-trm": {"bottom": "dtrn", "interest": "dmt"},
    "dmt-x3": {"bottom": "dmt", "copies": 3},
    "stem-dmt": {"bottom": "stem", "base": "dmt"},
    "pepnet-dmt": {"bottom": "pepnet", "base": "dmt"},
}
"""Variant of a bottom → the parts of its recipe that make it so: ablations and controls, explained in docs/models.md."""

SHORT = {
    "dtrn": "dtrn+mmoe",
    "dmt": "dmt+mmoe",
    "mmoe": "pooled+mmoe",
    "ple": "pooled+ple",
    "shared-bottom": "pooled+shared-bottom",
    "single-task": "pooled+single-task",
    "stem": "stem+stem",
    "pepnet": "pepnet+ppnet",
    **{name: f"{name}+mmoe" for name in VARIANTS},
    "stem-dmt": "stem-dmt+stem",
    "pepnet-dmt": "pepnet-dmt+ppnet",
}
"""Short name → bottom+head."""


def parts(kind: str) -> tuple[str, ...]:
    """The names of all files of `bottoms` or `heads`, in order."""
    folder = importlib.import_module(f"models.{kind}")
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folder.__path__)))


def bottoms() -> tuple[str, ...]:
    """The names of all bottoms, variants included, in order."""
    return tuple(sorted({*parts("bottoms"), *VARIANTS}))


def settings(bottom: str) -> dict[str, Any]:
    """The parts of a recipe that a bottom's name stands for.

    >>> settings("dtrn"), settings("dtrn-tim")
    ({'bottom': 'dtrn'}, {'bottom': 'dtrn', 'refinement': 'none'})
    """
    return VARIANTS.get(bottom, {"bottom": bottom})


def split(name: str) -> tuple[str, str]:
    """(bottom, head) of a model's name. Raises ValueError, saying what is known.

    >>> split("dtrn+ple"), split("mmoe"), split("dtrn-tim")
    (('dtrn', 'ple'), ('pooled', 'mmoe'), ('dtrn-tim', 'mmoe'))
    """
    bottom, plus, head = SHORT.get(name, name).partition("+")
    if not plus or bottom not in bottoms() or head not in parts("heads"):
        every = [*SHORT, *(f"{b}+{h}" for b in bottoms() for h in parts("heads"))]
        near = get_close_matches(name, every, n=1, cutoff=0.75)
        raise ValueError(
            f"'{name}' is not a model"
            + (f"; did you mean '{near[0]}'?" if near else ";")
            + f" {', '.join(SHORT)} are, and bottom+head with a bottom of {', '.join(bottoms())} "
            f"and a head of {', '.join(parts('heads'))}"
        )
    return bottom, head


def canonical(name: str) -> str:
    """The one name of a model: the short one where there is one. Raises ValueError as `split` does.

    >>> canonical("dtrn+mmoe"), canonical("dtrn+ple")
    ('dtrn', 'dtrn+ple')
    """
    whole = "+".join(split(name))
    return next((short for short, long in SHORT.items() if long == whole), whole)


def identifier(name: str) -> str:
    """The name where only letters, digits and _ may stand, as in Dagster.

    >>> identifier("dtrn+shared-bottom")
    'dtrn_shared_bottom'
    """
    return re.sub(r"[^a-z0-9]", "_", name)
