"""Typed recipes of the neural models: what is built, not how it is trained (that is the contract's `training`)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal


@dataclass(frozen=True)
class Recipe:
    """bottom × head and their sizes.

    width D of every embedding · attention heads N · layers of the conditional Transformer · ffn its hidden width · hyper width
    of the hypernetwork · reduction r of the refinement · experts E and their layer widths · tower width · dropout of ids to
    'unknown' in training · standard deviation of the embeddings at the start.
    """

    bottom: Literal["dtrn", "pooled"]
    head: Literal["mmoe"] = "mmoe"
    width: int = 16
    attention_heads: int = 2
    layers: int = 1
    ffn: int = 32
    hyper: int = 16
    reduction: int = 4
    experts: int = 4
    expert_widths: tuple[int, int] = (64, 32)
    tower: int = 16
    id_dropout: float = 0.1
    embedding_std: float = 0.1

    def __post_init__(self) -> None:
        if self.width % self.attention_heads:
            raise ValueError(
                f"width {self.width} is not divisible by attention_heads {self.attention_heads}; choose a multiple"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recipe:
        """Raises ValueError naming keys that this version does not know."""
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise ValueError(f"recipe has unknown keys {sorted(unknown)}; known are {[f.name for f in fields(cls)]}")
        return cls(**data | {"expert_widths": tuple(data["expert_widths"])})


MMOE = Recipe(bottom="pooled")
RECIPES = {"mmoe": MMOE, "dtrn": replace(MMOE, bottom="dtrn")}
