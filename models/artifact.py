"""An artifact is a folder: spec.json for people, weights and vocabulary as safetensors. Nothing in it can run code.

Its bytes depend on data, contract, code, seed and how many threads torch has (more add up in another order): two runs on the
same machine leave the same content hash.
"""

from __future__ import annotations

import json
import math
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from models.config import FORMAT, Recipe
from models.contract import Contract
from models.embeddings import Shape
from models.network import Network
from models.requests import Requests
from models.statistics import Statistics
from models.training import Trained, loader_of, predict
from models.vocabulary import Vocabulary

REMEDY = "retrain the model, or take the folder from the registry again"


class OtherVersion(ValueError):
    """An artifact that another version of the program wrote, and this one cannot read."""


@dataclass(frozen=True)
class NeuralRanker:
    """A loaded artifact. `score` takes raw-key requests, so training, judging and serving share one encoding."""

    name: str
    contract: Contract
    vocabulary: Vocabulary
    network: Network
    spec: dict[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.contract.task_names

    def as_trained(self, window: Requests) -> NeuralRanker:
        """The same ranker for days of its training: statistics as they were on each, of all samples of its training days.

        An artifact keeps only what is known after them, and tells an earlier day nothing.
        """
        statistics = Statistics.fit(self.contract, [window]) if self.vocabulary.statistics else {}
        return replace(self, vocabulary=replace(self.vocabulary, statistics=statistics))

    def score(self, requests: Requests) -> NDArray[np.float64]:
        """(B, T) probabilities."""
        return predict(self.network, loader_of(self.network.recipe, self.vocabulary, requests))


def save(folder: Path, name: str, trained: Trained) -> None:
    """Write the artifact of a trained model into the new folder `folder`."""
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in trained.network.state_dict().items()}, folder / "weights.safetensors")
    vocabulary = trained.vocabulary
    tables = {f"table/{k}": v for k, v in vocabulary.tables.items()} | {"items": vocabulary.items, "users": vocabulary.users}
    tables |= Statistics.kept(vocabulary.statistics)
    save_arrays({k: np.ascontiguousarray(v) for k, v in tables.items()}, folder / "vocabulary.safetensors")
    spec = {
        "format": FORMAT,
        "name": name,
        "recipe": trained.recipe.to_json(),
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "vocabulary": {field: len(keys) for field, keys in vocabulary.tables.items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "validation_score": trained.score,
        "history": [_json(asdict(e)) for e in trained.history],
        "contract": trained.contract.model_dump(mode="json"),
    }
    (folder / "spec.json").write_text(json.dumps(spec, indent=1, allow_nan=False) + "\n")


def load(folder: Path) -> NeuralRanker:
    """The artifact in `folder`. Raises ValueError naming the file that is missing, damaged or of another version."""
    spec = read_spec(folder)
    if missing := [key for key in ("name", "recipe", "contract") if key not in spec]:
        raise ValueError(f"{folder / 'spec.json'}: '{missing[0]}' is missing; {REMEDY}")
    try:
        contract, recipe = Contract.model_validate(spec["contract"]), Recipe.from_json(spec["recipe"])
    except ValidationError as error:
        told = "; ".join(f"contract.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{folder / 'spec.json'}: {told}; {REMEDY}") from None
    except ValueError as error:
        raise ValueError(f"{folder / 'spec.json'}: {error}; {REMEDY}") from None
    arrays = _read(folder / "vocabulary.safetensors", load_arrays)
    tables = {k.removeprefix("table/"): v for k, v in arrays.items() if k.startswith("table/")}
    statistics = Statistics.read(arrays)
    vocabulary = Vocabulary(contract, tables, arrays["items"], arrays["users"], statistics)
    with torch.device("meta"):
        network = Network(recipe, Shape.of(contract, vocabulary))
    try:
        network.load_state_dict(_read(folder / "weights.safetensors", load_file), assign=True)
    except RuntimeError as error:
        raise ValueError(f"{folder / 'weights.safetensors'}: does not fit spec.json ({error}); {REMEDY}") from None
    return NeuralRanker(spec["name"], contract, vocabulary, network.eval(), spec)


def read_spec(folder: Path) -> dict[str, Any]:
    """spec.json of the artifact in `folder`. Raises ValueError when it cannot be read, OtherVersion when not by this one."""
    path = folder / "spec.json"
    try:
        spec: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {REMEDY}") from None
    if not isinstance(spec, dict):
        raise ValueError(f"{path}: not an object; {REMEDY}")
    if spec.get("format") != FORMAT:
        raise OtherVersion(f"{path}: format {spec.get('format')!r} came, {FORMAT} is what this version reads; {REMEDY}")
    return spec


def _json(value: Any) -> Any:
    """The same with null for nan, which JSON does not know."""
    if isinstance(value, dict):
        return {k: _json(v) for k, v in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _read(path: Path, reader: Any) -> dict[str, Any]:
    try:
        arrays: dict[str, Any] = reader(path)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); {REMEDY}") from None
    return arrays
