"""A training in flight on disk: one safetensors file an epoch, renamed into place, so a kill at any moment leaves a whole one.

It holds the weights, their average, the best average, the optimiser's moments and, as metadata, the history and what the run
was made of.
There is no generator state to keep: the randomness of an epoch depends on (seed, epoch) alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


@dataclass(frozen=True)
class Epoch:
    """What one epoch gave, per task: training loss, validation log loss and AUC; and the score that stops early (low: good).

    A validation AUC is nan where the early-stopping day has one class only; such a task does not count in the score.
    """

    epoch: int
    loss: dict[str, float]
    validation_loss: dict[str, float]
    validation_auc: dict[str, float]
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one run in `folder`; `origin` says what the run is made of, and a file of another run is refused."""

    folder: Path
    origin: str

    @property
    def file(self) -> Path:
        return self.folder / "epoch.safetensors"

    def save(
        self,
        network: nn.Module,
        averaged: nn.Module,
        optimiser: torch.optim.Optimizer,
        best: dict[str, Tensor],
        history: list[Epoch],
    ) -> None:
        """Replace the checkpoint by the state after the last epoch of `history`."""
        groups = {"now": network.state_dict(), "averaged": averaged.state_dict(), "best": best}
        tensors = {f"{group}/{k}": v for group, weights in groups.items() for k, v in weights.items()}
        for number, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser/{number}/{k}": v for k, v in state.items()}
        told = {"origin": self.origin, "history": json.dumps([asdict(e) for e in history])}
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f".epoch.{os.getpid()}"
        save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, part, told)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.file)

    def resume(
        self, network: nn.Module, averaged: nn.Module, optimiser: torch.optim.Optimizer
    ) -> tuple[list[Epoch], dict[str, Tensor]]:
        """(history, best weights) of the run so far, with all three as they were; nothing when there is no file.

        Raises ValueError when the file is damaged or of another run.
        """
        if not self.file.is_file():
            return [], {}
        groups: dict[str, dict[str, Tensor]] = {"now": {}, "averaged": {}, "best": {}, "optimiser": {}}
        try:
            with safe_open(self.file, "pt") as file:
                told = file.metadata()
                for key in file.keys():  # noqa: SIM118 - not a dict
                    group, name = key.split("/", 1)
                    groups[group][name] = file.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"{self.file}: cannot be read ({error}); delete it, and the training starts again") from None
        if told["origin"] != self.origin:
            raise ValueError(f"{self.file}: is of another recipe, contract or data; delete it, or train in another folder")
        network.load_state_dict(groups["now"])
        averaged.load_state_dict(groups["averaged"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in groups["optimiser"].items():
            number, key = name.split("/")
            state.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        return [Epoch(**e) for e in json.loads(told["history"])], groups["best"]
