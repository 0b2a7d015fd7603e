"""A training that breaks off: what it leaves, how it goes on to the same weights, and what is told of why it broke."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from models import checkpoint, training
from models.checkpoint import Checkpoint, Epoch
from models.training import train
from tests.shops import shop, terms
from tests.test_training import RECIPE, TRAINING, VALIDATION, fit, small, weights

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("one_thread")


class _Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["dtrn", "mmoe", "single-task"])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, name: str) -> None:
    contract, recipe = terms(epochs=4, patience=9), small(name)

    def interrupt(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise _Interrupted

    with pytest.raises(_Interrupted):
        fit(tmp_path / "broken", contract, recipe, interrupt)
    told: list[Epoch] = []
    resumed = fit(tmp_path / "broken", contract, recipe, told.append)
    unbroken = fit(tmp_path / "whole", contract, recipe)
    assert [e.epoch for e in told] == [3, 4]
    assert weights(resumed) == weights(unbroken)
    assert resumed.history == unbroken.history
    assert weights(fit(tmp_path / "broken", contract, recipe)) == weights(unbroken)  # nothing left to do: the same again


def test_a_run_killed_dead_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """`kill -9` in the middle of the third epoch, as a machine that goes down would do."""
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom tests import test_training as t\nfrom models.batches import Loader\n"
        "t.torch.set_num_threads(1)\nbatch, epochs, steps = Loader._batch, [], []\n"
        "def die(self, part, dropout):\n"
        "    steps.append(1) if len(epochs) == 2 and dropout else None\n"
        "    if len(steps) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return batch(self, part, dropout)\n"
        f"Loader._batch = die\nt.fit(Path({str(tmp_path / 'killed')!r}), t.terms(epochs=4, patience=9), report=epochs.append)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    told: list[Epoch] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = fit(tmp_path / "killed", terms(epochs=4, patience=9), report=told.append)
        assert [e.epoch for e in told] == [3, 4]
        assert weights(resumed) == weights(fit(tmp_path / "whole", terms(epochs=4, patience=9)))
    finally:
        torch.set_num_threads(threads)


def test_a_run_goes_on_though_what_it_does_not_read_has_changed(tmp_path: Path) -> None:
    """A person who mends the schedule or the serving after a kill must not be asked to delete anything."""
    contract = terms(epochs=3, patience=9)
    whole = weights(fit(tmp_path / "whole", contract))

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", contract, report=stop)
    other = contract.model_copy(
        update={
            "description": "another",
            "schedule": contract.schedule.model_copy(update={"hour": (contract.schedule.hour + 1) % 24}),
            "monitoring": contract.monitoring.model_copy(update={"drift_share": 0.9}),
        }
    )
    assert other.digest() != contract.digest()
    told: list[Epoch] = []
    assert weights(fit(tmp_path / "cut", other, report=told.append)) == whole
    assert [epoch.epoch for epoch in told] == [2, 3]


def test_a_checkpoint_of_other_labels_histories_or_terms_is_refused(tmp_path: Path) -> None:
    contract = terms(epochs=2)
    fitted, held_out = shop(contract, TRAINING, seed=1), shop(contract, VALIDATION, seed=2)
    told = fitted.sequences
    newer = replace(told, times=[told.times[0] + 1, *told.times[1:]])
    train(RECIPE, contract, fitted, held_out, checkpoint=tmp_path, report=lambda _: None)
    for terms_, first, second in (
        (contract, replace(fitted, label=1 - fitted.label), held_out),
        (contract, fitted, replace(held_out, label=1 - held_out.label)),
        (contract, replace(fitted, sequences=newer), held_out),
        (terms(epochs=2, learning_rate=0.5), fitted, held_out),
    ):
        with pytest.raises(ValueError, match="another recipe, contract or data; delete it"):
            train(RECIPE, terms_, first, second, checkpoint=tmp_path, report=lambda _: None)


def test_a_damaged_or_foreign_checkpoint_is_refused_with_the_remedy(tmp_path: Path) -> None:
    fit(tmp_path, terms(epochs=1))
    with pytest.raises(ValueError, match="another recipe, contract or data; delete it"):
        fit(tmp_path, terms(epochs=1), replace(RECIPE, id_dropout=0.2))
    file = Checkpoint(tmp_path, "").file
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"epoch\.safetensors: cannot be read .* delete it"):
        fit(tmp_path, terms(epochs=1))


def test_a_loss_that_is_not_a_number_names_epoch_step_and_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, calls = training.Network.loss, []

    def poisoned(self: Any, batch: Any, weight: Any) -> Any:
        calls.append(1)
        total, each = loss(self, batch, weight)
        return (total * math.nan, each * math.nan) if len(calls) == 8 else (total, each)

    monkeypatch.setattr(training.Network, "loss", poisoned)
    with pytest.raises(
        ValueError, match=r"task 'click' is not a number in epoch 2, step 3 of 5; lower training\.learning_rate"
    ):
        fit(tmp_path, terms(epochs=3))
    assert len(json.loads(_metadata(tmp_path)["history"])) == 1  # the whole epoch before is kept


def test_weights_that_a_last_step_spoils_are_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No loss is taken after the last step: what shows it is the scores."""
    learn, steps = training.learn, []

    def spoiled(network: Any, *arguments: Any) -> Any:
        loss = learn(network, *arguments)
        steps.append(1)
        if len(steps) == 10:
            with torch.no_grad():
                network.head.towers.last.bias.fill_(math.nan)
        return loss

    monkeypatch.setattr(training, "learn", spoiled)
    with pytest.raises(ValueError, match=r"after epoch 2 the scores .* are not numbers; lower training\.learning_rate"):
        fit(tmp_path, terms(epochs=3))
    assert len(json.loads(_metadata(tmp_path)["history"])) == 1


@pytest.mark.parametrize(
    ("error", "first"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …"),
            r"CUDA out of memory\. Tried to allocate 2\.00 GiB\.",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "CUDA error: CUBLAS_STATUS.*",
        ),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be …"), "CUDA error: out of memory"),
    ],
)
def test_a_gpu_without_memory_is_told_in_one_line_and_whole_epochs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, first: str
) -> None:
    learn, steps = training.learn, []

    def full(*arguments: Any) -> Any:
        steps.append(1)
        if len(steps) == 8:
            raise error
        return learn(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "learn", full)
        wanted = (
            rf"for the log and batches of 200 samples \({first}\); lower training\.batch_samples or training\.window_days, or"
        )
        with pytest.raises(ValueError, match=wanted) as raised:
            fit(tmp_path / "full", terms(epochs=3))
    assert "\n" not in str(raised.value)
    assert len(json.loads(_metadata(tmp_path / "full")["history"])) == 1
    assert weights(fit(tmp_path / "full", terms(epochs=3))) == weights(fit(tmp_path / "whole", terms(epochs=3)))


def test_another_mistake_of_torch_is_not_taken_for_one_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes of memory formats cannot be multiplied")

    monkeypatch.setattr(training, "learn", broken)
    with pytest.raises(RuntimeError, match="shapes of memory formats cannot be multiplied"):
        fit(tmp_path, terms(epochs=1))


def test_a_checkpoint_that_was_half_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors writes outside of Python, so that the tests that kill at every `open` do not see it."""
    written: list[int] = []

    def torn(tensors: Any, path: Path, told: Any) -> None:
        save_file(tensors, path, told)
        written.append(1)
        if len(written) == 3:
            path.write_bytes(path.read_bytes()[:1000])
            raise KeyboardInterrupt

    contract = terms(epochs=4, patience=9)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", torn)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "torn", contract)
    told: list[Epoch] = []
    resumed = fit(tmp_path / "torn", contract, report=told.append)
    assert [e.epoch for e in told] == [3, 4]
    assert weights(resumed) == weights(fit(tmp_path / "whole", contract))


def _metadata(folder: Path) -> dict[str, str]:
    header = Checkpoint(folder, "").file.read_bytes()
    length = int.from_bytes(header[:8], "little")
    told: dict[str, str] = json.loads(header[8 : 8 + length])["__metadata__"]
    return told
