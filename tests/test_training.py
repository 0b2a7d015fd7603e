"""The trainer: repeatable, stops early with the best weights, and says what cannot be learned from in words for people."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models import names, training
from models.batches import Loader
from models.checkpoint import Epoch
from models.config import RECIPES, Recipe
from models.contract import Contract
from models.metrics import auc, log_loss
from models.requests import MASKED, Requests
from models.statistics import Statistics, days_of
from models.training import Trained, device_of, train
from tests.shops import shop, terms

TRAINING, VALIDATION = "2026-03-30", "2026-03-31"
pytestmark = pytest.mark.usefixtures("one_thread")
RECIPE = replace(RECIPES["dtrn"], width=8, ffn=8, hyper=4, experts=2, expert_widths=(16, 8), tower=4)


def fit(folder: Path, contract: Contract, recipe: Recipe = RECIPE, report: Callable[[Epoch], None] = lambda _: None) -> Trained:
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    return train(recipe, contract, fitted, held_out, checkpoint=folder, report=report)


def weights(trained: Trained) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in trained.network.state_dict().items()}


def small(name: str) -> Recipe:
    """The model of this name in the sizes of these tests."""
    bottom, head = names.split(name)
    return replace(RECIPE, head=head, **names.settings(bottom))


@pytest.mark.parametrize("name", ["dtrn", "mmoe", "dmt", "single-task", "dmt-x3", "stem", "pepnet"])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path, name: str) -> None:
    recipe = small(name)
    first, second = (fit(tmp_path / str(n), terms(epochs=2), recipe) for n in range(2))
    assert weights(first) == weights(second)
    assert first.history == second.history
    assert weights(fit(tmp_path / "other", terms(epochs=2, seed=8), recipe)) != weights(first)


def test_another_seed_and_another_epoch_shuffle_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[list[int]] = []
    batches = Loader.batches

    def watched(self: Loader, samples: int, order: Any = None, dropout: Any = None) -> Any:
        if order is not None:
            orders.append(order.tolist())
        return batches(self, samples, order, dropout)

    monkeypatch.setattr(Loader, "batches", watched)
    for seed in (7, 8):
        fit(tmp_path / str(seed), terms(epochs=2, seed=seed))
    assert len(orders) == 4
    assert all(one != other for one, other in itertools.combinations(orders, 2))


@pytest.mark.parametrize("name", ["dtrn", "dmt", "mmoe", "ple", "single-task", "stem", "pepnet-dmt"])
def test_they_learn_the_taste_of_a_user(tmp_path: Path, name: str) -> None:
    """Click follows the parity of the user's own past; knowing user and parity perfectly gives an AUC of about 0.85."""
    recipe = replace(small(name), embedding_std=0.3, experts=4)  # with PLE's one of eight units a task no unit may live
    trained = fit(tmp_path, terms(epochs=8, learning_rate=0.01, patience=8, embedding_decay=0, seed=2), recipe)
    assert max(e.validation_auc["click"] for e in trained.history) > 0.75
    assert trained.history[-1].loss["click"] < trained.history[0].loss["click"] - 0.05


def test_what_is_recorded_is_what_the_metrics_say_of_the_best_weights(tmp_path: Path) -> None:
    """The learning rate is high, so that later epochs are worse: the weights that come back are still the best epoch's."""
    contract = terms(epochs=6, patience=6, learning_rate=0.2, averaging=0)
    told: list[Epoch] = []
    trained = fit(tmp_path, contract, replace(RECIPE, embedding_std=0.1), report=told.append)
    assert told == trained.history
    best = min(trained.history, key=lambda e: e.score)
    assert best.epoch < 6
    held_out = shop(contract, VALIDATION, seed=2)
    p = training.predict(trained.network, Loader(trained.vocabulary.encode(held_out)))
    relative = []
    for place, task in enumerate(contract.tasks):
        known = held_out.label[:, place] >= 0
        y = held_out.label[known, place]
        assert log_loss(y, p[known, place]) == best.validation_loss[task]
        assert auc(y, p[known, place]) == best.validation_auc[task]
        rate = y.mean()
        relative.append(best.validation_loss[task] / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)))
    assert best.score == pytest.approx(np.mean(relative), rel=1e-12)
    assert trained.score == best.score


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.8])
def test_what_is_judged_is_the_running_mean_of_the_epochs_weights(tmp_path: Path, kept: float) -> None:
    contract, file = terms(epochs=4, patience=9, averaging=kept), tmp_path / "epoch.safetensors"
    mean: dict[str, torch.Tensor] = {}
    judged = []

    def report(epoch: Epoch) -> None:
        state = load_file(file)
        for key, value in state.items():
            if key.startswith("now/"):
                name = key.removeprefix("now/")
                mean[name] = kept * mean[name] + (1 - kept) * value if name in mean else value
                torch.testing.assert_close(state[f"averaged/module.{name}"], mean[name], rtol=1e-5, atol=1e-7)
        judged.append((epoch.score, {name: value.clone() for name, value in mean.items()}))

    trained = fit(tmp_path, contract, report=report)
    _, best = min(judged, key=lambda pair: pair[0])
    for name, value in trained.network.state_dict().items():
        torch.testing.assert_close(value, best[name], rtol=1e-5, atol=1e-7)


def test_what_serves_knows_the_labels_of_the_early_stopping_day_too(tmp_path: Path) -> None:
    contract = terms(epochs=1)
    trained = fit(tmp_path, contract)
    both = [shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)]
    later = shop(contract, "2026-04-20", seed=3)
    told = trained.vocabulary.encode(later).told
    assert told is not None
    day = days_of(contract, later.time)[later.request]
    every, without = (Statistics.fit(contract, parts)["item"].rows(later.item[:, 0], day) for parts in (both, both[:1]))
    assert np.array_equal(told[1], every)
    assert not np.array_equal(every, without)


def test_it_stops_after_patience_epochs_without_a_better_score(tmp_path: Path) -> None:
    trained = fit(tmp_path, terms(epochs=40, patience=2, learning_rate=0.2))
    scores = [e.score for e in trained.history]
    assert len(scores) < 40
    assert len(scores) - 1 - int(np.argmin(scores)) == 2
    for stop in range(1, len(scores)):  # and it did not go on past an earlier stop
        assert stop - 1 - int(np.argmin(scores[:stop])) < 2


@pytest.mark.parametrize(
    ("name", "sets"),
    [
        ("dtrn", ["bottom."]),
        ("single-task", ["bottom.0.", "bottom.1."]),
        ("stem", ["bottom.0.", "bottom.1.", "bottom.2."]),
        ("pepnet", ["bottom.base."]),
    ],
)
def test_only_the_id_tables_are_decayed(tmp_path: Path, name: str, sets: list[str]) -> None:
    """Decoupled: without a gradient, a step takes `embedding_decay` of every user and item id row, and nothing of the rest."""
    network = fit(tmp_path, terms(epochs=1), small(name)).network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimiser = training.optimiser_of(network, learning_rate=1e-3, embedding_decay=0.01)
    tables = network.id_tables()
    for parameter in network.parameters():
        if not any(parameter is table for table in tables):
            parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    optimiser.settle()
    moved = {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"{one}fields.{field}.0.weight" for one in sets for field in ("user", "item")}
    for name in moved:
        torch.testing.assert_close(dict(network.named_parameters())[name].detach(), before[name] * 0.99)


def test_a_heavier_task_is_fitted_better(tmp_path: Path) -> None:
    tasks = {
        "click": {"behaviours": ["view"], "horizon_hours": 24},
        "buy": {"behaviours": ["buy"], "horizon_hours": 6, "given": "click"},
    }

    def loss(weight: float) -> float:
        contract = terms(epochs=3)
        data = contract.model_dump()
        data["tasks"] = {**tasks, "buy": {**tasks["buy"], "weight": weight}}
        trained = fit(tmp_path / str(weight), Contract.model_validate(data), replace(RECIPE, bottom="pooled"))
        return trained.history[-1].loss["buy"]

    assert loss(50) < loss(0.001)


def test_the_unknown_row_of_every_field_is_trained(tmp_path: Path) -> None:
    network = fit(tmp_path, terms(epochs=1)).network
    torch.manual_seed(terms().training.seed)
    start = dict(training.Network(RECIPE, training.Shape((31,), (27, 5), (6, 6), 2, 2, 4, (-1, 0))).named_parameters())
    tables = [name for name in start if ".fields." in name]
    assert len(tables) == 5
    for name in tables:
        assert not torch.equal(dict(network.named_parameters())[name][0], start[name][0])


def test_a_run_starts_at_the_base_rate_of_the_known_labels(tmp_path: Path) -> None:
    """The only step of the only epoch sees the network as it was built: its loss is the entropy of that rate."""
    contract = terms(epochs=1, batch_samples=10**6)
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    masked = np.where(fitted.label == 0, np.where(np.arange(len(fitted))[:, None] % 2, MASKED, 0), fitted.label)
    told: list[Epoch] = []
    train(RECIPE, contract, replace(fitted, label=masked.astype(np.int8)), held_out, checkpoint=tmp_path, report=told.append)
    rate = (masked[:, 0] == 1).sum() / (masked[:, 0] >= 0).sum()
    assert rate > 1.5 * (fitted.label[:, 0] == 1).mean()
    assert told[0].loss["click"] == pytest.approx(-(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), abs=0.05)


def _cut(requests: Requests, change: dict[int, int]) -> Requests:
    label = requests.label.copy()
    for task, value in change.items():
        label[:, task] = value
    return replace(requests, label=label)


def test_what_cannot_be_learned_from_is_said(tmp_path: Path) -> None:
    contract = terms()
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    nothing = fitted.take(np.empty(0, np.int64))
    cases = [
        (nothing, held_out, r"no training samples; widen training\.window_days"),
        (fitted, nothing, "no validation samples"),
        (_cut(fitted, {1: 0}), held_out, "task 'buy' has one class only in 900 training samples"),
        (_cut(fitted, {0: MASKED}), held_out, "task 'click' has one class only"),
        (fitted, _cut(held_out, {0: 0, 1: MASKED}), "no task has both classes on the early-stopping day"),
    ]
    for a, b, message in cases:
        with pytest.raises(ValueError, match=message):
            train(RECIPE, contract, a, b, checkpoint=tmp_path, report=print)
    assert not list(tmp_path.iterdir())


def test_a_task_of_one_class_on_the_validation_day_does_not_count_in_the_score(tmp_path: Path) -> None:
    contract = terms(epochs=1)
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    told: list[Epoch] = []
    train(RECIPE, contract, fitted, _cut(held_out, {1: 0}), checkpoint=tmp_path, report=told.append)
    assert math.isnan(told[0].validation_auc["buy"])
    rate = (held_out.label[:, 0] == 1).mean()
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    assert told[0].score == pytest.approx(told[0].validation_loss["click"] / entropy)


def test_every_epoch_has_an_order_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[bytes] = []
    batches = Loader.batches

    def watched(self: Loader, samples: int, order: Any = None, dropout: Any = None) -> Any:
        orders.extend([] if order is None else [order.tobytes()])
        return batches(self, samples, order, dropout)

    monkeypatch.setattr(Loader, "batches", watched)
    fit(tmp_path, terms(epochs=3, patience=9))
    assert len(orders) == len(set(orders)) == 3


def test_the_loss_told_is_the_mean_over_known_labels_and_not_over_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn, total, count = training.learn, torch.zeros(2, dtype=torch.float64), torch.zeros(2)

    def watched(network: Any, optimiser: Any, batch: Any, weight: Any) -> Any:
        loss = learn(network, optimiser, batch, weight)
        known = batch.known_BT.sum(0)
        total.add_(loss.double() * known)
        count.add_(known)
        return loss

    monkeypatch.setattr(training, "learn", watched)
    contract = terms(epochs=1, batch_samples=150)
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    fitted.label[: len(fitted) // 2, 1] = MASKED
    trained = train(RECIPE, contract, fitted, held_out, checkpoint=tmp_path, report=lambda _: None)
    assert list(trained.history[0].loss.values()) == pytest.approx((total / count).tolist(), rel=1e-9)


@pytest.mark.parametrize("name", ["dtrn", "mmoe"])
def test_two_threads_give_the_same_bits_each_time(tmp_path: Path, name: str) -> None:
    torch.set_num_threads(2)  # `one_thread` sets back what was
    first, second = (fit(tmp_path / str(n), terms(epochs=1), small(name)) for n in range(2))
    assert weights(first) == weights(second)


def test_devices_are_chosen_or_refused_in_words() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("toaster", "mps", "meta"):
        with pytest.raises(ValueError, match=f"'{name}' is not a device; 'auto', 'cpu' or 'cuda' is"):
            device_of(name)
    with pytest.raises(ValueError, match=r"no GPU is visible|GPUs are visible, from cuda:0"):
        device_of("cuda:99")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="no GPU is visible; use 'auto' or 'cpu'"):
            device_of("cuda")
