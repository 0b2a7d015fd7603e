"""One run of the leaderboard: a model is trained on the days before the judged one and stopped early on the last of them.
Then, once, it is scored on the judged day, and no choice is made by what comes out there.

A simulated day is scored against the true probabilities (`benchmarks.oracle`), a real one against its labels, with the AUCs of
resampled users beside (the cluster bootstrap of `models.judgement`). All models of one day are resampled alike, so what a
record keeps is enough to pair any two of them later.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from assets import lake, samples
from benchmarks import gradients, machine, oracle
from benchmarks.runs import GRADIENTS, Record, Run, Variant, digest
from benchmarks.search import Log
from models import metrics, window
from models.baselines import LightGBM, Popularity
from models.checkpoint import Epoch
from models.contract import Contract
from models.embeddings import Fields
from models.home import Home
from models.requests import Requests
from models.training import loader_of, predict, train

RESAMPLES, RESAMPLING_SEED = 400, 11

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """A log at hand: its home, what its days hold, and the rows that are trained on, stopped on and scored."""

    home: Home
    log: Log
    judged: Requests

    @classmethod
    def read(cls, home: Home, contract: Contract, day: str) -> Data:
        """Everything of a judged day; its content is in the log's too. Raises what `assets.samples.window_inputs` does."""
        log = Log.read(contract.name, home, contract, day)
        inputs = samples.window_inputs(home, contract, [*log.days, day])
        content = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
        return cls(home, replace(log, content=content), window.read_requests(home, contract, [day]))

    def of(self, variant: Variant, day: str) -> tuple[Contract, list[Requests]]:
        """Contract and (fit, held out, judged) as a variant of a model sees them."""
        if variant.longest is None:
            parts = [self.log.fit, self.log.held_out, self.judged]
            return variant.reads(self.log.contract, parts)
        contract = variant.contract(self.log.contract)
        days = self.log.days
        parts = [window.read_requests(self.home, contract, chosen) for chosen in (days[:-1], days[-1:], [day])]
        return variant.reads(contract, parts)


@dataclass(frozen=True)
class Fitted:
    """A trained model: how it scores raw-key requests, and what training it took."""

    score: Callable[[Requests], Floats]
    told: Record


@functools.cache
def code() -> str:
    """Digest of all source that decides what a run comes to; read once, since a file that changes later is not what runs."""
    return lake.code_hash("models/training.py", "models/window.py", "models/baselines.py")


def checkpoint_of(run: Run, data: Data, scratch: Path) -> Path:
    """The folder that a run's training in flight is kept in; the run is to be kept before it is removed."""
    return scratch / digest({**run.key(data.log.contract), "code": code(), "content": data.log.content})


def measured(run: Run, data: Data, scratch: Path, *, device: str, say: Callable[[str], None] = print) -> Record:
    """The record of a run. A training that was cut off goes on from its last epoch; its seconds are then those of the rest.

    Raises ValueError when the model cannot be trained.
    """
    contract, (fit, held_out, judged) = data.of(run.variant, run.where.day)
    settings = {name: value for name, value in run.terms.items() if name in type(contract.training).model_fields}
    contract = contract.model_copy(update={"training": contract.training.model_copy(update={**settings, "device": device})})
    key = run.key(data.log.contract)
    about = {
        **key,
        "content": data.log.content,
        "code": code(),
        "samples": {"fit": len(fit), "held_out": len(held_out), "judged": len(judged)},
        "device": device,
        "threads": torch.get_num_threads(),
        **machine.about(),
    }
    if run.kind == GRADIENTS:
        assert run.recipe is not None
        return {**about, "angles": gradients.angles(run.recipe, contract, fit, run.terms["epochs"], say)}
    began, busy = time.perf_counter(), time.process_time()
    fitted = _fitted(run, contract, fit, held_out, checkpoint_of(run, data, scratch), say)
    seconds = {"seconds": time.perf_counter() - began, "processor_seconds": time.process_time() - busy}
    return {**about, **seconds, **fitted.told, "tasks": _scored(run, data, judged, fitted.score(judged))}


def _fitted(
    run: Run, contract: Contract, fit: Requests, held_out: Requests, checkpoint: Path, say: Callable[[str], None]
) -> Fitted:
    if run.recipe is None:
        if run.model == "popularity":
            return Fitted(Popularity.fit(contract, fit).score, {})
        boosted = LightGBM.fit(contract, fit, held_out)
        trees = {task: b.num_trees() if b else 0 for task, b in zip(contract.tasks, boosted.boosters, strict=True)}
        return Fitted(boosted.score, {"trees": trees})

    def report(epoch: Epoch) -> None:
        aucs = ", ".join(f"{task} {value:.3f}" for task, value in epoch.validation_auc.items())
        say(f"    epoch {epoch.epoch}: validation score {epoch.score:.4f}, AUC {aucs}")

    resumed = checkpoint.exists()
    trained = train(run.recipe, contract, fit, held_out, checkpoint=checkpoint, report=report)
    best = min(trained.history, key=lambda epoch: epoch.score)
    told = {
        "resumed": resumed,
        "validation": {"score": best.score, "auc": {task: _number(auc) for task, auc in best.validation_auc.items()}},
        "best_epoch": best.epoch,
        "epochs": len(trained.history),
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "parameters_beside_embeddings": parameters_beside_embeddings(trained.network),
    }
    network, vocabulary = trained.network, trained.vocabulary
    return Fitted(lambda requests: predict(network, loader_of(network.recipe, vocabulary, requests)), told)


def parameters_beside_embeddings(network: torch.nn.Module) -> int:
    """Parameters that are in no table of a field: what a bottom and a head cost, whatever the number of ids."""
    tables = {id(p) for module in network.modules() if isinstance(module, Fields) for p in module.parameters()}
    return sum(p.numel() for p in network.parameters() if id(p) not in tables)


def _scored(run: Run, data: Data, judged: Requests, scores: Floats) -> dict[str, Record]:
    """Per task the AUCs of scores (B, T)."""
    tasks = data.log.contract.task_names
    if run.where.world is not None:
        reached = oracle.reach(data.home, data.log.contract, run.where.day, scores)
        return {
            task: {
                "auc": _number(r.drawn),
                "soft": _number(r.soft),
                "best_auc": _number(r.best_drawn),
                "best_soft": _number(r.best_soft),
                "positives": int((judged.label[:, t] == 1).sum()),
            }
            for t, (task, r) in enumerate(reached.items())
        }
    user = np.unique(judged.user[judged.request, 0], return_inverse=True)[1]
    counts = resampling(int(user.max()) + 1)
    out = {}
    for t, task in enumerate(tasks):
        y, s = judged.label[:, t], scores[:, t]
        drawn = metrics.resampled_auc(y, s, user, counts)
        out[task] = {
            "auc": _number(metrics.auc(y, s)),
            "resampled": [_number(round(float(value), 5)) for value in drawn],
            "positives": int((y == 1).sum()),
            "users_with_positives": len(np.unique(user[y == 1])),
        }
    return out


def resampling(users: int) -> NDArray[np.int64]:
    """(RESAMPLES, users): how often each user of a day is drawn, the same for every model; each row sums to `users`."""
    rng = np.random.default_rng(RESAMPLING_SEED)
    return np.stack([np.bincount(rng.integers(users, size=users), minlength=users) for _ in range(RESAMPLES)])


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def told(run: Run) -> str:
    """What a run is, in a line."""
    what = f"{run.model}, {run.variant.name}" if run.variant.name else run.model
    learned = "".join(
        f", {n.replace('_', ' ')} {run.terms[n]:g}" for n in ("learning_rate", "embedding_decay") if n in run.terms
    )
    return f"{what} on {run.where.name}{' (angles of gradients)' if run.kind == GRADIENTS else ''}{learned}"
