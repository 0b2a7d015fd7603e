"""One trainer for every neural model: it never asks which model it holds, since a model owns its loss.

Randomness of an epoch depends on (seed, epoch) alone, so a run that is killed and resumed ends in the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.batches import CPU, Batch, Loader
from models.checkpoint import Checkpoint, Epoch
from models.config import Recipe
from models.contract import LEARNED_FROM, Contract
from models.embeddings import Shape
from models.metrics import auc, log_loss
from models.network import Network
from models.optimiser import Deferred
from models.requests import Requests
from models.vocabulary import Vocabulary


@dataclass(frozen=True)
class Trained:
    """The best epoch's network with what it takes to use it."""

    recipe: Recipe
    contract: Contract
    vocabulary: Vocabulary
    network: Network
    history: list[Epoch]

    @property
    def score(self) -> float:
        """The best validation score: mean over tasks of log loss ÷ entropy of the base rate; 1 is to know only that rate."""
        return min(e.score for e in self.history)


def device_of(name: str) -> torch.device:
    """The device that `training.device` names; `auto` is cuda where there is one, else cpu. Raises ValueError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"training.device: '{name}' is not a device; 'auto', 'cpu' or 'cuda' is")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device: 'cuda' is asked for and no GPU is visible; use 'auto' or 'cpu'")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"training.device: '{name}' is asked for; {torch.cuda.device_count()} GPUs are visible, from cuda:0")
    return device


def train(
    recipe: Recipe,
    contract: Contract,
    training: Requests,
    validation: Requests,
    *,
    checkpoint: Path,
    report: Callable[[Epoch], None],
) -> Trained:
    """Train `recipe` on raw-key requests; early stop on `validation`, and the best epoch's weights are always what comes back.

    `checkpoint` is a folder: a run that finds its own checkpoint there goes on from it. Raises ValueError when there is nothing
    to learn from, when the loss stops being a number, or when the GPU's memory does not suffice.
    """
    _check(contract, training, validation)
    with _memory_told(contract):
        settings = contract.training
        vocabulary = Vocabulary.fit(training, contract, (training, validation) if recipe.statistics else ())
        shape = Shape.of(contract, vocabulary)
        device = device_of(settings.device)
        torch.manual_seed(settings.seed)
        network = Network(recipe, shape)
        network.start_from(torch.from_numpy(base_rates(training)).float())
        network.to(device)
        optimiser = optimiser_of(network, learning_rate=settings.learning_rate, embedding_decay=settings.embedding_decay)
        weight = torch.tensor([t.weight for t in contract.tasks.values()], device=device)
        seen, held_out = (loader_of(recipe, vocabulary, part, device) for part in (training, validation))
        entropy = _entropy(validation)
        # What is judged and kept is the mean of the epochs' weights, the newest counting most: a single epoch's are noisy.
        average = get_ema_multi_avg_fn(settings.averaging)  # type: ignore[no-untyped-call]
        averaged = AveragedModel(network, multi_avg_fn=average)
        state = Checkpoint(checkpoint, _origin(recipe, contract, training, validation))
        history, best = state.resume(network, averaged, optimiser)
        while len(history) < settings.epochs and not _stopped(history, settings.patience):
            epoch = len(history) + 1
            loss = _run_epoch(network, optimiser, seen, contract, weight, epoch)
            averaged.update_parameters(network)
            mean = cast("Network", averaged.module)
            record = _measure(contract, mean, held_out, loss, entropy, epoch)
            history.append(record)
            if record.score == min(e.score for e in history):
                best = {k: v.detach().cpu().clone() for k, v in mean.state_dict().items()}
            state.save(network, averaged, optimiser, best, history)
            report(record)
        network.load_state_dict(best)
        return Trained(recipe, contract, vocabulary, network.cpu().eval(), history)


@contextmanager
def _memory_told(contract: Contract) -> Iterator[None]:
    """A GPU that has not memory enough is a ValueError with what to do."""
    try:
        yield
    except RuntimeError as error:
        told = str(error)  # of cuBLAS and of the CUDA runtime, neither of which has a class of its own for it
        if not isinstance(error, torch.OutOfMemoryError) and "ALLOC_FAILED" not in told and "out of memory" not in told:
            raise
        lines = told.splitlines()
        raise ValueError(
            f"the GPU's memory does not suffice for the log and batches of {contract.training.batch_samples} samples "
            f"({lines[0]}); lower training.batch_samples or training.window_days, or set training.device to 'cpu'"
        ) from None


def _origin(recipe: Recipe, contract: Contract, training: Requests, validation: Requests) -> str:
    """What a training comes to depends on this, its code and its device."""
    data = hashlib.blake2b()
    for part in (training, validation):
        told = part.sequences
        rows = (part.user, part.time, part.offsets, part.item, part.context, part.label, part.start, part.end)
        for array in (*rows, *told.tokens, *told.times):
            data.update(np.ascontiguousarray(array).data)
    terms = contract.digest(*LEARNED_FROM)
    return json.dumps({"recipe": recipe.to_json(), "contract": terms, "data": data.hexdigest()}, sort_keys=True)


def optimiser_of(network: Network, *, learning_rate: float, embedding_decay: float) -> Deferred:
    """Adam for everything; each step also takes the share `embedding_decay` of every row of the user and item id tables.

    Decoupled (Loshchilov & Hutter, ICLR 2019), and in their first form, where the decay does not scale with the learning rate:
    as a term of the gradient Adam would blow it up to a whole step for each row that a batch leaves out, which are nearly all.
    """
    tables = network.id_tables()
    ids = {id(p) for p in tables}
    rest = [p for p in network.parameters() if id(p) not in ids]
    return Deferred(tables, rest, lr=learning_rate, share=embedding_decay)


def learn(network: Network, optimiser: Deferred, batch: Batch, weight_T: Tensor) -> Tensor:
    """One step on a batch; the loss per task (T,) before it."""
    optimiser.prepare(network.id_rows(batch))
    optimiser.zero_grad(set_to_none=True)
    with precision(weight_T.device):
        loss, per_task = network.loss(batch, weight_T)
    torch.autograd.backward(loss)
    optimiser.step()
    return per_task.detach()


def precision(device: torch.device) -> torch.autocast:
    """What a forward pass of training runs under: bfloat16 products on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def _check(contract: Contract, training: Requests, validation: Requests) -> None:
    for name, requests in (("training", training), ("validation", validation)):
        if not len(requests):
            raise ValueError(f"no {name} samples; widen training.window_days or ingest more days")
    for place, task in enumerate(contract.tasks):
        if not {0, 1} <= set(np.unique(training.label[:, place]).tolist()):
            raise ValueError(
                f"task '{task}' has one class only in {len(training)} training samples; "
                "check the contract's labels, widen training.window_days, or leave the task out"
            )
    if not np.isfinite(_entropy(validation)).any():
        raise ValueError("no task has both classes on the early-stopping day; widen training.window_days or judge another day")


def base_rates(requests: Requests) -> NDArray[np.float64]:
    """Per task (T,): the share of positives among known labels."""
    rates: NDArray[np.float64] = (requests.label == 1).sum(0) / np.maximum((requests.label >= 0).sum(0), 1)
    return rates


def _entropy(requests: Requests) -> NDArray[np.float64]:
    """Per task: entropy of the base rate in nats; inf where there is one class only, so that the task does not count."""
    rate = base_rates(requests)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return np.where((rate > 0) & (rate < 1), entropy, np.inf)


def _stopped(history: list[Epoch], patience: int) -> bool:
    if not history:
        return False
    best = min(range(len(history)), key=lambda n: history[n].score)
    return len(history) - 1 - best >= patience


def _run_epoch(
    network: Network,
    optimiser: Deferred,
    loader: Loader,
    contract: Contract,
    weight: Tensor,
    epoch: int,
) -> dict[str, float]:
    settings = contract.training
    random = np.random.default_rng([settings.seed, epoch])
    order = random.permutation(len(loader.requests.time))
    network.train()
    losses, known = [], []
    rate = network.recipe.id_dropout
    for batch in loader.batches(settings.batch_samples, order, (rate, random)):
        losses.append(learn(network, optimiser, batch, weight))
        known.append(batch.known_BT.sum(0))
    optimiser.settle()
    steps, labels = torch.stack(losses).double().cpu(), torch.stack(known).cpu()
    wrong = (~steps.isfinite()).nonzero().tolist()
    if wrong:
        step, task = wrong[0]
        raise ValueError(
            f"the loss of task '{list(contract.tasks)[task]}' is not a number in epoch {epoch}, step {step + 1} of "
            f"{len(losses)}; lower training.learning_rate (now {settings.learning_rate}), or the task's weight"
        )
    mean = (steps * labels).sum(0) / labels.sum(0).clamp(min=1)
    return dict(zip(contract.tasks, mean.tolist(), strict=True))


def loader_of(recipe: Recipe, vocabulary: Vocabulary, requests: Requests, device: torch.device = CPU) -> Loader:
    """Batches on `device`, as a network of `recipe` reads them, of raw-key requests."""
    return Loader(vocabulary.encode(requests), vocabulary.contract.item_slots if recipe.matches else (), device)


def predict(network: Network, loader: Loader) -> NDArray[np.float64]:
    """(B, T) probabilities, samples in the loader's order."""
    network.eval()
    with torch.inference_mode():
        outs = [torch.sigmoid(network(batch).double()) for batch in loader]
        return torch.cat(outs).cpu().numpy() if outs else np.empty((0, network.tasks))


def _measure(
    contract: Contract,
    network: Network,
    loader: Loader,
    loss: dict[str, float],
    entropy: NDArray[np.float64],
    epoch: int,
) -> Epoch:
    probabilities, labels = predict(network, loader), loader.requests.label
    if not np.isfinite(probabilities).all():
        raise ValueError(
            f"after epoch {epoch} the scores of the early-stopping day are not numbers; lower training.learning_rate "
            f"(now {contract.training.learning_rate})"
        )
    losses, aucs, relative = {}, {}, []
    for place, task in enumerate(contract.tasks):
        known = labels[:, place] >= 0
        y, p = labels[known, place], probabilities[known, place]
        losses[task] = log_loss(y, p) if len(y) else math.nan
        aucs[task] = auc(y, p)
        if math.isfinite(entropy[place]):
            relative.append(losses[task] / entropy[place])
    return Epoch(epoch, loss, losses, aucs, float(np.mean(relative)))
