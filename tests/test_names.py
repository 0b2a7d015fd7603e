"""Models by name: what is known, what the contract, Dagster and the command line make of it, and how one is added."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

import models.heads
from assets import lake, packaging, training
from models import names
from models.config import RECIPES, Recipe, named
from models.contract import Contract, load
from models.embeddings import Shape
from models.home import Home
from models.network import Network
from orchestration import jobs
from orchestration.build import build
from orchestration.command_line import main
from tests import logs, reference, reference_heads, tiny_log
from tests.shops import Sizes, encoded, lively
from tests.test_dtrn_reference import SMALL, require_the_same

ROOT = Path(__file__).resolve().parent.parent


def test_short_names_mean_what_the_design_says() -> None:
    assert {name: names.split(name) for name in RECIPES} == {
        "dtrn": ("dtrn", "mmoe"), "dmt": ("dmt", "mmoe"), "mmoe": ("pooled", "mmoe"), "ple": ("pooled", "ple"),
        "shared-bottom": ("pooled", "shared-bottom"), "single-task": ("pooled", "single-task"),
        "stem": ("stem", "stem"), "stem-dmt": ("stem-dmt", "stem"),
        "pepnet": ("pepnet", "ppnet"), "pepnet-dmt": ("pepnet-dmt", "ppnet"),
        **{name: (name, "mmoe") for name in names.VARIANTS if name.startswith(("dtrn", "dmt", "pooled"))},
    }  # fmt: skip
    assert len({json.dumps(recipe.to_json()) for recipe in RECIPES.values()}) == len(RECIPES)  # no two are one model


def test_every_bottom_goes_with_every_head() -> None:
    for bottom in names.bottoms():
        for head in names.parts("heads"):
            recipe = named(f"{bottom}+{head}")
            assert recipe == replace(RECIPES["mmoe"], head=head, **names.settings(bottom))
            assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
            assert Network(recipe, Sizes().shape).tasks == 3


@pytest.mark.parametrize(
    "name",
    [
        "transformer",
        "dtrn-",
        "dtrn-tim+",
        "dtrn+",
        "+ple",
        "dtrn+dtrn",
        "ple+mmoe",
        "dtrn+ple+mmoe",
        "DTRN",
        "dtrn+__init__",
        "",
    ],
)
def test_an_unknown_name_says_what_is_known(name: str) -> None:
    bottoms = r"dmt, dmt-plain, .*, dtrn, dtrn-.*, pepnet, .*, pooled, pooled-plain, stem, stem-dmt"
    known = rf"(did you mean '.*'\? )?dtrn, dmt, .* bottom\+head with a bottom of {bottoms} and a head of .*single-task"
    with pytest.raises(ValueError, match=f"^'{re.escape(name)}' is not a model; {known}"):
        named(name)


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    for wrong, right in (("dtrn+plee", "dtrn+ple"), ("moe", "mmoe"), ("single_task", "single-task")):
        with pytest.raises(ValueError, match=f"is not a model; did you mean '{re.escape(right)}'\\? "):
            named(wrong)
    with pytest.raises(ValueError, match=r"stem$"):
        named("gpt")


def _listing(*candidates: str) -> Contract:
    return logs.contract(logs.EVENTS, training={"candidates": candidates})


def test_a_contract_takes_any_model_by_its_one_name() -> None:
    assert _listing("dtrn+ple", "pooled+mmoe", "single-task").training.candidates == ("dtrn+ple", "mmoe", "single-task")
    assert _listing("dtrn-tim+mmoe", "dmt-x3+ple", "stem+stem").training.candidates == ("dtrn-tim", "dmt-x3+ple", "stem")
    assert logs.contract(logs.EVENTS).training.candidates == ("dtrn", "mmoe")
    with pytest.raises(ValueError, match=r"'dtrn\+mmoe' is 'dtrn' once more; name a model once"):
        _listing("dtrn", "dtrn+mmoe")


def test_a_contracts_file_with_an_unknown_model_is_refused_with_its_key(tmp_path: Path) -> None:
    tiny_log.contract(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(path.read_text() + '[training]\ncandidates = ["dtrn", "gpt"]\n')
    with pytest.raises(ValueError, match=r"tiny\.toml: training\.candidates: 'gpt' is not a model; dtrn, dmt, mmoe"):
        load(path)


def test_dagster_has_an_asset_for_each_candidate_and_the_verdict_waits_for_it() -> None:
    terms = _listing("dtrn+shared-bottom", "single-task")
    defs = build(terms, Home(Path("/nowhere"), terms.name), source=terms.name)
    dg.Definitions.validate_loadable(defs)
    graph = defs.resolve_asset_graph()
    trained = {"popularity", "lightgbm", "dtrn_shared_bottom", "single_task"}
    assert {key.path[-1] for key in graph.get_all_asset_keys() if graph.get(key).group_name == "training"} == trained
    verdict = graph.get(dg.AssetKey([terms.name, "verdict"]))
    assert {key.path[-1] for key in verdict.parent_keys} == trained | {"samples"}
    for name in ("dtrn_shared_bottom", "single_task"):
        node = graph.get(dg.AssetKey([terms.name, name]))
        assert node.pools == {"gpu"}
        assert {key.path[-1] for key in node.parent_keys} == {"samples", "histories"}
        assert node.backfill_policy == dg.BackfillPolicy.multi_run(1)
    assert set(jobs.trained(terms)) == trained


def test_the_code_of_every_part_counts_for_a_training_and_for_nothing_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts are found while the program runs, so no import statement names them."""
    (tmp_path / "assets").symlink_to(ROOT / "assets")
    for path in (ROOT / "models").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(lake, "SOURCE", tmp_path)

    def hashes() -> tuple[str, ...]:
        stages = (training.NEURAL, training.COUNTED, ("assets/samples.py",))
        return tuple(lake.code_hash.__wrapped__(*stage) for stage in stages)

    before = hashes()
    for part in ("heads/mmoe.py", "bottoms/dmt.py", "towers.py", "transformer.py", "heads/new.py"):
        path = tmp_path / "models" / part
        path.write_text((path.read_text() if path.is_file() else "") + "# changed\n")
        after = hashes()
        assert after[0] != before[0], part
        assert after[1:] == before[1:], part
        before = after


def test_what_is_named_counts_for_the_hash_of_the_code_whatever_imports_it() -> None:
    """A set of paths is walked in another order in each process: the hash of a bento's files must not hang on it."""
    staged = {path for pattern in packaging.STAGED for path in ROOT.glob(pattern)}
    assert ROOT / "models" / "home.py" in staged
    assert staged <= lake._closure(staged)
    assert ROOT / "models" / "home.py" not in lake._closure(staged - {ROOT / "models" / "home.py"})


def test_the_page_lists_every_variant_with_its_parameters() -> None:
    page = (ROOT / "docs" / "models.md").read_text().split("## Variants")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|.* \| ([\d,]+) \|$", page, re.MULTILINE)
    shape = Shape((9, 8), (9, 8, 7), (9, 8), tasks=3, actions=4, length=50)

    def size(bottom: str) -> int:
        built = Network(named(f"{bottom}+mmoe"), shape).bottom
        tables = {id(p) for fields in built.tables() for p in fields.parameters()}
        tables |= {id(p) for name, p in built.named_parameters() if name.endswith("matches.table")}
        return sum(p.numel() for p in built.parameters() if id(p) not in tables)

    assert {name: int(count.replace(",", "")) for name, count in listed} == {
        name: size(name) for name in ("dtrn", "dmt", *names.VARIANTS)
    }


def test_the_pages_example_is_a_head_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's file in a folder of heads, and the page's reference: no other edit."""
    head, slow = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "models.md").read_text(), re.DOTALL)
    (tmp_path / "direct.py").write_text(head)
    monkeypatch.setattr(models.heads, "__path__", [*models.heads.__path__, str(tmp_path)])
    monkeypatch.setattr(reference_heads, "HEADS", own := dict(reference_heads.HEADS))
    exec(slow, dict(vars(reference_heads)))
    monkeypatch.setattr(reference, "HEADS", own)
    assert _listing("dtrn+direct").training.candidates == ("dtrn+direct",)
    for bottom in names.parts("bottoms"):
        sizes = Sizes(requests=2, lengths=(9, 3), events=(40, 8))
        network = lively(Recipe(**{**SMALL.to_json(), "bottom": bottom, "head": "direct"}), sizes.shape, 1)
        require_the_same(network, encoded(sizes, 1), sizes.tasks)


@contextmanager
def trained_elsewhere(home: Home, seconds: float) -> Iterator[None]:
    """Another run of this home holds the pool for a while."""
    with dg.DagsterInstance.from_config(str(home.dagster)) as instance:
        storage = instance.event_log_storage
        storage.initialize_concurrency_limit_to_default("gpu")
        assert storage.claim_concurrency_slot("gpu", "another", "training").is_claimed
        timer = threading.Timer(seconds, storage.free_concurrency_slot_for_step, ("another", "training"))
        timer.start()
        try:
            yield
        finally:
            timer.join()


def test_one_model_is_trained_by_name_though_the_contract_does_not_list_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    rows = [tiny_log.row(day, user, (3 * user + day) % 11, 60 * user) for day in range(1, 7) for user in range(1, 13)]
    (tmp_path / "in" / "log.csv").write_text("".join(rows))
    path = tmp_path / "tiny.toml"
    text = (
        tiny_log.TOML.replace("REPEATS", "real")
        .replace("LIMIT", "0.1")
        .replace("last_day = 2024-01-04", "last_day = 2024-01-06")
    )
    path.write_text(text + '[training]\ncandidates = ["mmoe"]\nepochs = 2\nwidth = 4\ndevice = "cpu"\n')
    home = Home(tmp_path / "home", "tiny")

    def told(*words: str) -> str:
        common = ("--dataset", str(path), "--home", str(home.root))
        monkeypatch.setattr("sys.argv", ["dtrn", *words, *common])
        with pytest.raises(SystemExit):
            main()
        printed = capfd.readouterr()
        return printed.out + printed.err

    told("backfill", "--log", str(tmp_path / "in"))
    with trained_elsewhere(home, seconds=3):
        out = told("train", "--model", "shared-bottom")
    assert "… shared_bottom 2024-01-05: waits for another training in this DTRN_HOME" in out
    assert "✓ shared_bottom 2024-01-05" in out
    out = told("train", "--model", "pooled+ple")
    assert re.search(r"✓ ple 2024-01-05 +[\d.]+ s +epoch [12] of 2 kept, validation score \d\.\d{4}", out), out
    day = re.search(r"ple for 2024-01-05: [\d,]+ parameters, epoch [12] of 2 kept; on its early-stopping day (\S+):", out)
    assert day is not None, out
    assert day[1] < "2024-01-05"
    assert re.search(r"validation score \d\.\d{4} ", out)
    assert re.search(r"view: AUC 0\.\d{4}, log loss 0\.\d{4}", out)
    assert sorted(p.name for p in home.model("ple", "").iterdir()) == ["2024-01-05"]
    assert not home.model("mmoe", "").exists()
    assert "· ple 2024-01-05" in told("train", "--model", "ple")  # nothing changed, so nothing is done
    assert told("train", "--model", "ple+ple").startswith("dtrn: 'ple+ple' is not a model; did you mean ")
