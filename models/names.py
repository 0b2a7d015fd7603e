"""What the neural models are called: `bottom+head` (`dtrn+ple`), six of them with a short name, and which parts there are.

A part is a file of `models/bottoms` or `models/heads`, named as the file is, with `-` for `_`. They are only listed here: the
contract asks which names there are, and whoever reads a contract must neither wait for torch nor depend on a model's code.
"""

from __future__ import annotations

import importlib
import pkgutil
import re

SHORT = {
    "dtrn": "dtrn+mmoe",
    "dmt": "dmt+mmoe",
    "mmoe": "pooled+mmoe",
    "ple": "pooled+ple",
    "shared-bottom": "pooled+shared-bottom",
    "single-task": "pooled+single-task",
}
"""Short name → bottom+head."""


def parts(kind: str) -> tuple[str, ...]:
    """The names of all `bottoms` or `heads`, in order."""
    folder = importlib.import_module(f"models.{kind}")
    return tuple(sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(folder.__path__)))


def split(name: str) -> tuple[str, str]:
    """(bottom, head) of a model's name. Raises ValueError, saying what is known.

    >>> split("dtrn+ple"), split("mmoe")
    (('dtrn', 'ple'), ('pooled', 'mmoe'))
    """
    bottom, plus, head = SHORT.get(name, name).partition("+")
    bottoms, heads = parts("bottoms"), parts("heads")
    if not plus or bottom not in bottoms or head not in heads:
        raise ValueError(
            f"'{name}' is not a model; {', '.join(SHORT)} are, and bottom+head with a bottom of {', '.join(bottoms)} "
            f"and a head of {', '.join(heads)}"
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
