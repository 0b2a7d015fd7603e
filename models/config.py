"""Typed recipes of the neural models: what is built, not how it is trained (that is the contract's `training`)."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from models import names

FORMAT = 5
"""Of an artifact's files: raised when today's code cannot read yesterday's."""

Size = Annotated[int, Field(ge=1)]


def _part(kind: str) -> AfterValidator:
    def known(name: str) -> str:
        if name not in names.parts(kind):
            raise ValueError(f"is not among {', '.join(names.parts(kind))}")
        return name

    return AfterValidator(known)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Recipe:
    """bottom × head and their sizes.

    width D of every embedding · attention heads N · layers of a Transformer · ffn its hidden width · hyper width of the
    hypernetwork · reduction r of the refinement · experts E that a task sees and their layer widths · tower width · share of
    rows that turn 'unknown' in training · standard deviation of the embeddings at the start. Of DTRN and DMT: what makes the
    `interest` of a history and its `refinement` (in the modules of these names), `copies` of DMT's Transformers. Of
    STEM and PEPNet: the `base` bottom that they have a copy of per stream, or a gate on. `matches`: whether an
    interest is also told how often and how lately the history has the candidate; `statistics`: whether a sample is also told
    how earlier ones of its user and of its item went. Raises ValueError naming the part.
    """

    bottom: Annotated[str, _part("bottoms")]
    head: Annotated[str, _part("heads")] = "mmoe"
    width: Size = 16
    attention_heads: Size = 2
    layers: Size = 1
    ffn: Size = 32
    hyper: Size = 16
    reduction: Size = 4
    experts: Size = 4
    expert_widths: tuple[Size, Size] = (64, 32)
    tower: Size = 16
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    embedding_std: Annotated[float, Field(gt=0)] = 0.3
    interest: Literal["task-action", "task", "action", "shared", "separate", "dmt"] = "task-action"
    refinement: Literal["task", "shared", "none"] = "task"
    copies: Size = 1
    base: Annotated[str, _part("bottoms")] = "pooled"
    matches: bool = True
    statistics: bool = True

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Recipe:
        if self.width % self.attention_heads:
            raise ValueError(
                f"width {self.width} is not divisible by attention_heads {self.attention_heads}; choose a multiple"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Recipe:
        """Raises ValueError with every part that is missing, unknown or wrong."""
        try:
            return TypeAdapter(cls).validate_python(data)
        except ValidationError as error:
            raise ValueError("; ".join(_explain(e) for e in error.errors())) from None


def _explain(error: Any) -> str:
    part = ".".join(str(p) for p in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return f"recipe.{part}: no such part; known are {', '.join(Recipe.__dataclass_fields__)}"
    if error["type"] == "missing":
        return f"recipe.{part}: is missing"
    came = f" ({error['input']!r} came)" if part else ""
    return f"recipe{'.' if part else ''}{part}: {error['msg'].removeprefix('Value error, ')}{came}"


MMOE = Recipe(bottom="pooled")


def named(name: str, width: int = MMOE.width) -> Recipe:
    """The recipe of a short name, or of `bottom+head`. Raises ValueError for an unknown one, saying what is known."""
    bottom, head = names.split(name)
    return replace(MMOE, width=width, head=head, **names.settings(bottom))


RECIPES = {name: named(name) for name in names.SHORT}
"""Those that have a short name."""
