"""The artifact: what is saved scores the same to the bit, says what it is, holds nothing that can run, and breaks in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import artifact
from models.batches import Loader
from models.config import RECIPES, Recipe, named
from models.contract import Contract
from models.requests import NULL_KEY, Requests, Sequences
from models.training import Trained, predict, train
from tests.shops import shop, terms

NAMES = ("dtrn", "mmoe", "single-task", "dmt+ple", "pooled+esmm", "dmt-x3", "dtrn-separate+ple", "stem", "pepnet-dmt")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    contract = terms(epochs=2)
    data = shop(contract, "2026-03-30", seed=1), shop(contract, "2026-03-31", seed=2)
    folder = tmp_path_factory.mktemp("checkpoints")
    return {n: train(replace(named(n), width=8), contract, *data, checkpoint=folder / n, report=lambda _: None) for n in NAMES}


@pytest.fixture
def folder(tmp_path: Path, trained: dict[str, Trained]) -> Iterator[Path]:
    artifact.save(tmp_path / "saved", "dtrn", trained["dtrn"])
    return tmp_path / "saved"  # type: ignore[return-value]


def asked(contract: Contract) -> Requests:
    """Requests of another day with unknown users, items and missing features among them."""
    requests = shop(contract, "2026-04-02", seed=3, requests=60)
    item, user = requests.item.copy(), requests.user.copy()
    item[::7, 0], item[::5, 1], user[::6] = 10**15, NULL_KEY, -4
    return replace(requests, item=item, user=user)


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_artifact_scores_as_the_network_that_was_saved(tmp_path: Path, trained: dict[str, Trained], name: str) -> None:
    kept = trained[name]
    artifact.save(tmp_path / "saved", name, kept)
    ranker = artifact.load(tmp_path / "saved")
    requests = asked(kept.contract)
    scores = ranker.score(requests)
    assert scores.shape == (360, 2)
    assert scores.dtype == np.float64
    assert ((scores > 0) & (scores < 1)).all()
    expected = predict(kept.network, Loader(kept.vocabulary.encode(requests)))
    assert np.array_equal(scores, expected)
    assert (ranker.name, ranker.tasks, ranker.contract) == (name, ("click", "buy"), kept.contract)


def test_a_loaded_vocabulary_is_the_saved_one(folder: Path, trained: dict[str, Trained]) -> None:
    """Remembered features too, which the service falls back on."""
    before, after = trained["dtrn"].vocabulary, artifact.load(folder).vocabulary
    assert before.tables.keys() == after.tables.keys()
    assert all(np.array_equal(before.tables[k], after.tables[k]) for k in before.tables)
    items = before.tables["item"]
    assert np.array_equal(after.item_features(items)[:, 0], (items - 1000) % 4)
    assert after.item_features(np.array([10**15])).tolist() == [[NULL_KEY]]


@pytest.mark.parametrize("name", NAMES)
def test_one_request_alone_scores_as_in_the_batch(tmp_path: Path, trained: dict[str, Trained], name: str) -> None:
    """As the service asks: a request with only its own tokens, against all requests at once."""
    artifact.save(tmp_path / "saved", name, trained[name])
    ranker = artifact.load(tmp_path / "saved")
    requests = asked(ranker.contract)
    together = ranker.score(requests)
    for u in range(0, 60, 5):
        spans = list(zip(requests.start[u], requests.end[u], strict=True))
        own = Sequences(
            requests.user[u],
            [np.array([0, e - s]) for s, e in spans],
            [t[s:e] for t, (s, e) in zip(requests.sequences.tokens, spans, strict=True)],
            [t[s:e] for t, (s, e) in zip(requests.sequences.times, spans, strict=True)],
        )
        one = requests.take(np.array([u]))
        one = replace(one, start=np.zeros_like(one.start), end=one.end - one.start, sequences=own)
        alone = ranker.score(one)
        assert np.abs(alone - together[requests.offsets[u] : requests.offsets[u + 1]]).max() < 1e-6


def test_a_thousand_candidates_score_as_they_do_ten_at_a_time(folder: Path) -> None:
    ranker = artifact.load(folder)
    requests = shop(ranker.contract, "2026-04-01", seed=5, requests=1, candidates=1000)
    many = ranker.score(requests)
    few = []
    for start in range(0, 1000, 10):
        part = slice(start, start + 10)
        few.append(
            ranker.score(
                replace(
                    requests,
                    offsets=np.array([0, 10]),
                    item=requests.item[part],
                    context=requests.context[part],
                    label=requests.label[part],
                )
            )
        )
    assert np.abs(np.concatenate(few) - many).max() < 1e-6


def test_no_requests_give_no_scores(folder: Path) -> None:
    ranker = artifact.load(folder)
    assert ranker.score(asked(ranker.contract).take(np.empty(0, np.int64))).shape == (0, 2)


def test_the_spec_tells_a_person_what_the_model_is(folder: Path, trained: dict[str, Trained]) -> None:
    kept = trained["dtrn"]
    spec = json.loads((folder / "spec.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert spec["validation_score"] == kept.score
    assert spec["history"] == [asdict(e) for e in kept.history]
    assert Contract.model_validate(spec["contract"]) == kept.contract
    assert Recipe.from_json(spec["recipe"]) == kept.recipe
    assert spec["vocabulary"] == {"user": 30, "item": 26, "category": 4, "hour": 5, "weekday": 5}
    assert spec["versions"]["torch"] == torch.__version__
    assert spec["parameters"] == sum(p.numel() for p in kept.network.parameters())
    assert sorted(p.name for p in folder.iterdir()) == ["spec.json", "vocabulary.safetensors", "weights.safetensors"]


def test_an_undefined_auc_is_null_in_the_spec(tmp_path: Path, trained: dict[str, Trained]) -> None:
    kept = trained["dtrn"]
    history = [replace(kept.history[0], validation_auc={"click": 0.5, "buy": float("nan")})]
    artifact.save(tmp_path / "saved", "dtrn", replace(kept, history=history))
    assert artifact.read_spec(tmp_path / "saved")["history"][0]["validation_auc"] == {"click": 0.5, "buy": None}


def test_two_saves_leave_the_same_bytes(tmp_path: Path, folder: Path, trained: dict[str, Trained]) -> None:
    artifact.save(tmp_path / "again", "dtrn", trained["dtrn"])
    for file in folder.iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


@pytest.mark.parametrize("name", ["spec.json", "weights.safetensors", "vocabulary.safetensors"])
@pytest.mark.parametrize("harm", ["missing", "cut", "empty"])
def test_a_damaged_artifact_names_the_file_and_the_remedy(folder: Path, name: str, harm: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else b"")
    with pytest.raises(
        ValueError, match=rf"{name}: cannot be read .*; retrain the model, or take the folder from the registry"
    ):
        artifact.load(folder)


def test_another_format_is_refused(folder: Path) -> None:
    _change(folder, format=99)
    with pytest.raises(ValueError, match="format 99 came, 5 is what this version reads; retrain the model"):
        artifact.load(folder)


def test_weights_of_another_model_do_not_load(folder: Path, tmp_path: Path, trained: dict[str, Trained]) -> None:
    artifact.save(tmp_path / "other", "mmoe", trained["mmoe"])
    (folder / "weights.safetensors").write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"weights\.safetensors: does not fit spec\.json"):
        artifact.load(folder)


def test_a_spec_without_its_keys_or_with_a_wrong_recipe_is_refused(folder: Path) -> None:
    spec = artifact.read_spec(folder)
    wrong = [
        ({"recipe": {**spec["recipe"], "colour": "red"}}, r"recipe\.colour: no such part; known are bottom, head, width"),
        ({"recipe": {**spec["recipe"], "width": "wide"}}, r"recipe\.width: Input should be a valid integer.* \('wide' came\)"),
        ({"contract": {**spec["contract"], "tasks": {}}}, r"contract\.tasks: Dictionary should have at least 1 item"),
    ]
    for change, message in wrong:
        (folder / "spec.json").write_text(json.dumps(spec | change))
        with pytest.raises(ValueError, match=rf"spec\.json: .*{message}.*; retrain the model"):
            artifact.load(folder)
    for key in ("recipe", "contract", "name"):
        (folder / "spec.json").write_text(json.dumps({k: v for k, v in spec.items() if k != key}))
        with pytest.raises(ValueError, match=rf"spec\.json: '{key}' is missing; retrain the model"):
            artifact.load(folder)
    (folder / "spec.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"spec\.json: not an object; retrain the model"):
        artifact.load(folder)


def _change(folder: Path, **keys: Any) -> None:
    spec = json.loads((folder / "spec.json").read_text())
    (folder / "spec.json").write_text(json.dumps(spec | keys))


def test_recipes_survive_json() -> None:
    for recipe in RECIPES.values():
        assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_a_wrong_recipe_says_what_came_and_what_would_be_right() -> None:
    data = RECIPES["dtrn"].to_json()
    wrong = [
        ({**data, "bottom": "dnn"}, r"recipe\.bottom: is not among dmt, dtrn, pepnet, pooled, stem \('dnn' came\)"),
        ({**data, "id_dropout": 1.5}, r"recipe\.id_dropout: Input should be less than 1 \(1\.5 came\)"),
        ({**data, "base": "ple"}, r"recipe\.base: is not among dmt, dtrn, pepnet, pooled, stem \('ple' came\)"),
        ({**data, "interest": "mean"}, r"recipe\.interest: Input should be 'task-action', 'task', .* or 'dmt' \('mean' came\)"),
        ({**data, "layers": 0}, r"recipe\.layers: Input should be greater than or equal to 1 \(0 came\)"),
        ({**data, "width": 15}, "recipe: width 15 is not divisible by attention_heads 2; choose a multiple"),
        ({"width": 16}, r"recipe\.bottom: is missing"),
    ]
    for recipe, message in wrong:
        with pytest.raises(ValueError, match=message):
            Recipe.from_json(recipe)
