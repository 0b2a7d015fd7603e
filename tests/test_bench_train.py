"""The training benchmark: the whole of it on a tiny log, what its figures are made of, and that each side is what it says."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from benchmarks import contest, exposures
from benchmarks import train as benchmark
from benchmarks.contest import ROOT, PeerMissing, Side, peer_python
from benchmarks.ours import NormedMMoE, Trainer, network_of, recipe_of, shape_of
from benchmarks.padded import PlainDTRN, collate
from benchmarks.ratios import COMPARISONS, compared, table
from benchmarks.train import Settings
from models.batches import Loader
from models.config import RECIPES, named
from models.embeddings import Shape
from models.requests import Requests
from models.vocabulary import Vocabulary
from tests import reference
from tests.shops import encoded, enliven, lively
from tests.test_dtrn_reference import SHAPES, SMALL, Sizes

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    "samples": 2000,
    "items": "300 900",
    "rounds": 2,
    "round_samples": 600,
    "padded_samples": 60,
    "batch": 100,
    "threads": 1,
}
AUC = {"auc_samples": 1500, "auc_items": 100, "auc_rows": 400, "auc_seeds": 2}


def by_path(name: str) -> ModuleType:
    """A benchmark's file as `benchmarks/side.py` loads it: the peer's is imported by nobody."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


# the whole benchmark


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """(what it wrote, what it printed), with the tests' own torch-rechub as the peer."""
    pytest.importorskip("torch_rechub")
    out = tmp_path_factory.mktemp("bench") / "train.json"
    app = typer.Typer()
    app.command()(benchmark.main)
    options = [w for name, value in (TINY | AUC).items() for w in (f"--{name.replace('_', '-')}", *str(value).split())]
    done = CliRunner().invoke(app, [*options, "--peer", sys.executable, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text()), done.output


def test_every_ratio_is_the_quotient_of_the_medians_of_the_rounds_kept(whole: tuple[dict[str, Any], str]) -> None:
    result, _ = whole
    named = ("pooled", "pooled_alike", "dtrn", "dtrn_slim", "pooled_told", "dtrn_told")
    speeds = {f"{name}_{items}" for name in named for items in ("300", "900")} | {"dtrn_vs_padded"}
    of_gpu = {f"{name}_gpu_{items}" for name in ("pooled", "dtrn") for items in ("300", "900")}
    assert set(result["ratios"]) == speeds | of_gpu | {"memory"}
    assert set(result["sides"]) == speeds | of_gpu | {"memory", "first_batch"}
    for name in speeds:
        side = result["sides"][name]
        assert len(side["rounds"]["ours"]) == len(side["rounds"]["other"]) == TINY["rounds"]
        ours, other = (statistics.median(side["rounds"][which]) for which in ("ours", "other"))
        assert (side["ours"], side["other"]) == (ours, other)
        assert result["ratios"][name] == side["ratio"] == ours / other
        each = [o / t for o, t in zip(side["rounds"]["ours"], side["rounds"]["other"], strict=True)]
        assert side["ratio_of_rounds"] == [min(each), max(each)]
        busy = side["by_processor_time"]
        ours, other = (statistics.median(busy["rounds"][which]) for which in ("ours", "other"))
        assert busy["ratio"] == ours / other
        if side["must_be"]:
            assert side["ok"] == (side["ratio"] >= float(side["must_be"].removeprefix(">= ")))
    required = {name: result["sides"][name]["must_be"] for name in speeds if result["sides"][name]["must_be"]}
    assert required == {
        "pooled_300": ">= 5", "pooled_900": ">= 10", "dtrn_300": ">= 1.2", "dtrn_900": ">= 3", "dtrn_vs_padded": ">= 50",
    }  # fmt: skip
    assert {benchmark.label(items) for items in Settings.items} == {"50k", "1m"}


def test_what_a_device_allows_stands_beside_what_was_reached(whole: tuple[dict[str, Any], str]) -> None:
    result, printed = whole
    for items in ("300", "900"):
        for model, side in (("mmoe", "pooled"), ("dtrn", "dtrn")):
            found = result["limits"][items]["cpu"][model]
            seconds = {
                "products": found["flops_per_sample"] / found["device_flops"],
                "bytes": found["bytes_per_sample"] / found["device_bytes"],
            }
            assert found["most"] == pytest.approx(1 / max(seconds.values()))
            assert seconds[found["limit"]] == max(seconds.values())
            assert found["speed"] == result["sides"][f"{side}_{items}"]["ours"]
            assert found["fraction"] == found["speed"] / found["most"]
    if not torch.cuda.is_available():
        assert [of["cuda"] for of in result["limits"].values()] == [None, None]
        assert all(result["sides"][f"{name}_gpu_300"]["ratio"] is None for name in ("pooled", "dtrn"))
        rows = [line for line in printed.splitlines() if "on the GPU ÷ what its" in line]
        assert len(rows) == 4
        assert all(row.count("not measured") == 3 for row in rows)


def test_memory_is_the_worst_pair_and_the_first_batch_the_slower_table(whole: tuple[dict[str, Any], str]) -> None:
    result, _ = whole
    memory, first = result["sides"]["memory"], result["sides"]["first_batch"]
    ratios = {
        (items, model): peaks[model] / peaks["shipped"] for items, peaks in memory["all"].items() for model in ("mmoe", "dtrn")
    }
    assert len(ratios) == 4
    assert result["ratios"]["memory"] == memory["ours"] / memory["other"] == max(ratios.values())
    assert memory["ok"] == (result["ratios"]["memory"] <= 0.5)
    assert all(peak > 2**26 for peaks in memory["all"].values() for peak in peaks.values())
    seconds = {items: sides["ours"]["seconds"] for items, sides in first["all"].items()}
    assert result["first_batch_s"] == first["ours"] == max(seconds.values())
    assert first["ok"] == (first["ours"] <= 2)
    for sides in first["all"].values():
        parts = sides["ours"]
        assert parts["fit"] + parts["encode"] + parts["batch"] == pytest.approx(parts["seconds"])


def test_what_it_was_measured_on_and_with_stands_beside_it(whole: tuple[dict[str, Any], str]) -> None:
    result, _ = whole
    assert result["versions"]["peer"]["torch-rechub"] == "0.9.0"
    assert result["versions"]["peer"]["torch"] == result["versions"]["torch"]
    assert result["machine"]["cores"]
    assert result["peer_missing"] is None
    assert result["settings"]["seed"] == 1
    assert set(result["settings"]) == {field.name for field in fields(Settings)}
    for items in ("300", "900"):
        log = result["logs"][items]
        assert 0.8 * TINY["samples"] < log["samples"] < 1.2 * TINY["samples"]  # type: ignore[operator]
        assert 9 < log["samples"] / log["requests"] < 11
        assert set(log["lengths"]) == set(exposures.ACTIONS)


def test_auc_is_kept_by_seed_task_and_way_with_its_interval(whole: tuple[dict[str, Any], str]) -> None:
    result, _ = whole
    assert set(result["auc"]["models"]) == {"mmoe", "dtrn", "dtrn+slim"}
    for found in result["auc"]["models"].values():
        fast, plain = (np.array(found[way]) for way in ("fast", "plain"))
        assert fast.shape == plain.shape == (2, 3)
        difference = fast.mean(1) - plain.mean(1)
        expected = stats.ttest_1samp(difference, 0).confidence_interval(0.95)
        assert found["difference"] == pytest.approx(difference.mean())
        assert found["interval"] == pytest.approx([expected.low, expected.high])
        assert found["ok"] == (expected.high >= 0)


def test_the_table_shows_both_sides_what_must_be_and_whether_it_is(whole: tuple[dict[str, Any], str]) -> None:
    result, printed = whole
    for side in result["sides"].values():
        if side["unit"] == "samples/s" and side["ratio"] is not None:
            assert f"{side['ours']:,.0f}/s" in printed
            assert f"{side['other']:,.0f}/s" in printed
            assert f"{side['ratio']:.2f}" in printed
    told = {side["ok"] for side in result["sides"].values()} | {f["ok"] for f in result["auc"]["models"].values()}
    assert (" below " in printed) == (False in told)
    assert (" ok " in printed) == (True in told)


def test_a_ratio_that_falls_short_is_told_as_it_is(whole: tuple[dict[str, Any], str]) -> None:
    result, _ = whole
    rounds = {
        "mmoe": [{"samples": 490, "seconds": 1.0, "processor_seconds": 2.0}] * 3,
        "shipped": [{"samples": 100, "seconds": 1.0, "processor_seconds": 1.0}] * 3,
    }
    short = compared(COMPARISONS[0], 5, rounds)
    assert (short["ratio"], short["by_processor_time"]["ratio"], short["ok"]) == (4.9, 2.45, False)
    assert compared(COMPARISONS[0], 4.9, rounds)["ok"]
    console = Console(width=200, record=True)
    console.print(table({**result, "sides": {"pooled_300": short}, "auc": {**result["auc"], "models": {}}}))
    assert "below" in console.export_text()


# without a peer


def test_a_peer_that_cannot_be_installed_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*words: Any, **named: Any) -> Any:
        raise PeerMissing("torch-rechub==0.9.0 could not be installed: no network")

    monkeypatch.setattr(benchmark, "peer_python", nothing)
    settings = Settings(
        samples=1000, items=(200, 400), rounds=1, round_samples=200, padded_samples=50, memory_samples=200, batch=100,
        threads=1, auc_models=("mmoe",), auc_seeds=(1, 2), auc_samples=1000, auc_items=50, auc_rows=100,
    )  # fmt: skip
    benchmark.measure(settings, None, tmp_path / "train.json")
    result, printed = json.loads((tmp_path / "train.json").read_text()), capsys.readouterr().out
    assert result["peer_missing"] == "torch-rechub==0.9.0 could not be installed: no network"
    assert "the peer is not measured: torch-rechub==0.9.0 could not be installed: no network" in printed
    ratios = result["ratios"]
    assert ratios.pop("dtrn_vs_padded") > 0
    assert set(ratios.values()) == {None}
    assert result["sides"]["pooled_200"]["ours"] > 0
    assert result["sides"]["pooled_200"]["other"] is None
    assert {result["sides"][name]["ok"] for name in ratios} == {None}
    assert "not measured" in printed


def test_pips_last_words_are_told_when_there_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(PeerMissing, match=r"torch==\S+ torch-rechub==\S+ could not be installed: .*No matching distribution"):
        peer_python(tmp_path / "environment")


def test_an_environment_of_todays_pins_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []

    def run(words: list[str], **named: Any) -> Any:
        made.append(words)
        tmp_path.joinpath("environment").mkdir(exist_ok=True)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(contest.subprocess, "run", run)
    folder = tmp_path / "environment"
    assert peer_python(folder) == folder / "bin" / "python"
    assert [words[1:3] for words in made] == [["-m", "venv"], ["-m", "pip"]]
    pins = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch")]
    assert len(pins) == 2
    assert set(pins) <= set(made[1])
    peer_python(folder)
    assert len(made) == 2
    (folder / "pins").write_text("torch-rechub==0.1\n")
    peer_python(folder)
    assert len(made) == 4


def test_a_side_that_dies_says_why(tmp_path: Path) -> None:
    dead = Side(Path(sys.executable), "ours.py", tmp_path / "nowhere", items=3, batch=2, seed=1, threads=1)
    with pytest.raises(RuntimeError, match=r"(?s)ours\.py, 3 items: the process ended \(1\):.*No such file.*nowhere"), dead:
        pass


def test_a_peak_is_that_of_the_process_not_of_the_one_that_started_it() -> None:
    held = np.ones(2**27)  # 1 GiB
    code = "import side; before = side.peak_bytes(); bytes(2**20) * 2**8; print(before, side.peak_bytes())"
    words, folder = [sys.executable, "-c", code], ROOT / "benchmarks"
    told = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout
    before, after = map(int, told.split())
    assert before < held.nbytes
    assert 2**28 * 0.9 < after - before < 2**28 * 1.2


# both sides are what they claim


@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("layers", [1, 2])
def test_the_plain_padded_form_is_the_same_function(sizes: Sizes, layers: int) -> None:
    """Logits as the slow reference has them, and the fast network's own gradients."""
    network = lively(replace(SMALL, layers=layers, matches=False, statistics=False), sizes.shape, 5)
    requests = encoded(sizes, 5)
    batch, padded = next(iter(Loader(requests))), collate(requests, max(sizes.lengths))
    batch.label_BT, padded.label = batch.label_BT.double(), padded.label.double()
    with torch.no_grad():
        expected = reference.logits(dict(network.named_parameters()), requests, network.recipe, sizes.tasks)
        assert torch.allclose(PlainDTRN(network)(padded), expected, atol=1e-9)
    gradients = []
    for loss in (network.loss(batch, torch.ones(sizes.tasks))[0], PlainDTRN(network).loss(padded)):
        network.zero_grad()
        loss.backward()
        gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in network.parameters()])
    assert any(gradient.any() for gradient in gradients[0])
    for (name, _), fast, plain in zip(network.named_parameters(), *gradients, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-9, rtol=1e-7, msg=name)


def linears(mlp: Any) -> list[torch.nn.Linear]:
    return [layer for layer in mlp.mlp if isinstance(layer, torch.nn.Linear)]


@torch.no_grad()
def test_ours_with_batch_norm_is_torch_rechubs_mmoe() -> None:
    """In training mode, so that means and variances are the batch's; their biases, which BatchNorm takes away again, are 0."""
    multi_task = pytest.importorskip("torch_rechub.models.multi_task")
    features = pytest.importorskip("torch_rechub.basic.features")
    torch.manual_seed(3)
    recipe, width = replace(RECIPES["mmoe"], expert_widths=(6, 5), tower=4), 10
    head = NormedMMoE(recipe, Shape((), (), (), 3, 0, 0), width)
    enliven(head)
    for bias in (head.first.bias, head.second.bias, head.towers.hidden.bias):
        bias.zero_()
    tower = {"dims": [recipe.tower]}
    dense = [features.DenseFeature("x", embed_dim=width)]
    theirs = multi_task.MMOE(dense, ["classification"] * 3, recipe.experts, {"dims": [6, 5]}, [tower] * 3)
    norms = {"first": [], "second": [], "gate": [], "tower": []}  # type: ignore[var-annotated]
    for e, expert in enumerate(theirs.experts):
        first, second = linears(expert)
        first.weight.copy_(head.first.weight[6 * e : 6 * e + 6])
        second.weight.copy_(head.second.weight[e].T)
        norms["first"].append(expert.mlp[1])
        norms["second"].append(expert.mlp[5])
    for task, (gate, own) in enumerate(zip(theirs.gates, theirs.towers, strict=True)):
        linears(gate)[0].weight.copy_(head.gate[task].T)
        linears(own)[0].weight.copy_(head.towers.hidden.weight[task].T)
        linears(own)[1].weight.copy_(head.towers.last.weight[task].T)
        linears(own)[1].bias.copy_(head.towers.last.bias[task, 0])
        norms["gate"].append(gate.mlp[1])
        norms["tower"].append(own.mlp[1])
    for name, theirs_of in norms.items():
        norm = getattr(head, f"norm_{name}")
        for part, gamma, beta in zip(theirs_of, *(x.chunk(len(theirs_of)) for x in (norm.weight, norm.bias)), strict=True):
            assert isinstance(part, torch.nn.BatchNorm1d)
            part.weight.copy_(gamma)
            part.bias.copy_(beta)
    x = torch.randn(40, width)
    ours = torch.sigmoid(head(x[None]))
    assert ours.std() > 0.01
    torch.testing.assert_close(ours, theirs({"x": x}), atol=1e-5, rtol=1e-5)


@pytest.fixture(scope="module")
def rows() -> tuple[Requests, Vocabulary]:
    drawn = exposures.draw(3000, 200, 7).requests
    vocabulary = Vocabulary.fit(drawn, exposures.CONTRACT)
    return vocabulary.encode(drawn), vocabulary


def test_behind_told_a_model_reads_what_it_does_by_default(tmp_path: Path) -> None:
    exposures.save(exposures.draw(3000, 200, 7).requests, tmp_path / "raw")
    trainer = Trainer(tmp_path / "raw", items=500, batch=100, seed=1)
    loader, shape = trainer.told
    by_default = named("dtrn").to_json()
    for name, told in (("dtrn-told", True), ("dtrn", False)):
        recipe = recipe_of(name).to_json()
        assert {part: recipe[part] == by_default[part] for part in ("matches", "statistics")} == dict.fromkeys(
            ("matches", "statistics"), told
        )
    (batch,) = loader.batches(10**6)
    assert shape.told > 0
    assert batch.match_BAK2.shape[2] == 2
    assert batch.item_told_BT.shape[1] == batch.user_told_UT.shape[1] == shape.tasks
    assert trainer.pass_over("dtrn-told", 100, 1)["loss"] > 0


def test_both_sides_have_the_same_widths_fields_and_table(rows: tuple[Requests, Vocabulary], tmp_path: Path) -> None:
    """But for the biases of their gates, and those that BatchNorm brings, in which ours with BatchNorm is equal too."""
    pytest.importorskip("torch_rechub")
    requests, vocabulary = rows
    exposures.save(requests, tmp_path / "log")
    peer = by_path("peer").Trainer(tmp_path / "log", 500, 100, 1)
    ours = network_of("mmoe-normed", shape_of(exposures.CONTRACT, vocabulary, 500), 1)
    sizes = peer.trainer.model.embedding.embed_dict
    mine = ours.bottom.fields
    assert sizes["item_0"].weight.shape == mine.item[0].weight.shape == (501, 16)
    for name, tables in (("user", mine.user), ("context", mine.context)):
        for place, own in enumerate(tables):
            assert sizes[f"{name}_{place}"].weight.shape == own.weight.shape
    gate_biases = 3 * recipe_of("mmoe").experts
    assert peer.parameters == sum(p.numel() for p in ours.parameters()) + gate_biases
    turn = peer.pass_over("shipped", 300, 1)
    assert turn["samples"] == 300
    assert np.isfinite(turn["loss"])


def test_the_peer_reads_the_histories_that_ours_reads(rows: tuple[Requests, Vocabulary]) -> None:
    requests, _ = rows
    padded, request = by_path("peer").padded, requests.request
    for action, tokens in enumerate(requests.sequences.tokens):
        start, end = requests.start[:, action], requests.end[:, action]
        got = padded(tokens[:, 0], start, end, request.astype(np.int32))
        assert got.shape == (len(requests), (end - start).max())
        for sample in range(0, len(requests), 50):
            span = tokens[start[request[sample]] : end[request[sample]], 0].tolist()
            assert got[sample].tolist() == span + [0] * (got.shape[1] - len(span))
