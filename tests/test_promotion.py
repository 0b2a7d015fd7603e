"""From a verdict to a champion: nothing twice, nothing that is unchecked, nothing where the champion stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from assets import lake, packaging, registry, served
from assets.project import Project
from models.home import Home
from orchestration import sensors
from tests.serving import JUDGED, SHOWN, judge

WHEN = datetime(2026, 4, 3, tzinfo=UTC)
STEPS = ("packaged_model", "bento", "parity")


def crown(home: Home, judged_day: str = JUDGED) -> registry.Champion | None:
    return packaging.crown(home, judged_day, "a test", WHEN)


def bento_folder(home: Home) -> Path:
    return served.bento_folder(home, packaging.read(home.promotion("bento", JUDGED))["tag"])


def test_the_winner_reigns_and_a_second_run_moves_nothing(copied: Home) -> None:
    change = crown(copied)
    assert change is not None
    assert (change.judged_day, change.name, change.who, change.why) == (JUDGED, "dtrn", "a test", "It is better.")
    assert change.tag == registry.model_tag(copied, SHOWN, "dtrn", JUDGED)
    assert crown(copied) is None
    assert len(registry.champions(copied)) == 1


def test_unchanged_nothing_is_stored_built_or_measured_again(copied: Home) -> None:
    before = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*") if p.is_file()}
    steps = (
        packaging.package(copied, SHOWN, JUDGED, "run-2"),
        packaging.build_bento(copied, SHOWN, JUDGED),
        packaging.compare(copied, SHOWN, JUDGED),
    )
    assert [step and step[1] for step in steps] == [False, False, False]
    assert {p: p.stat().st_mtime_ns for p in copied.root.rglob("*") if p.is_file()} == before


def test_what_vanished_from_the_store_is_made_again_the_same(copied: Home) -> None:
    folder = bento_folder(copied)
    tag = packaging.read(copied.promotion("bento", JUDGED))["tag"]
    shutil.rmtree(folder)
    shutil.rmtree(registry.artifact(copied, registry.model_tag(copied, SHOWN, "dtrn", JUDGED)).parent)
    with pytest.raises(lake.Missing, match="is not in the store; materialise packaged_model"):
        packaging.build_bento(copied, SHOWN, JUDGED)
    packaged = packaging.package(copied, SHOWN, JUDGED, "run-2")
    built = packaging.build_bento(copied, SHOWN, JUDGED)
    assert packaged is not None
    assert built is not None
    assert packaged[1]
    assert built[1]
    assert packaging.read(copied.promotion("bento", JUDGED))["tag"] == tag
    assert (folder / "bento.yaml").is_file()
    same = packaging.compare(copied, SHOWN, JUDGED)  # so its parity still stands
    assert same is not None
    assert not same[1]


def test_a_bento_holds_source_and_pins_and_names_its_model_in_full(built: Home) -> None:
    folder = bento_folder(built)
    model = packaging.read(built.promotion("bento", JUDGED))["model"]
    inside = {
        p.relative_to(folder / "src").as_posix() for p in (folder / "src").rglob("*") if p.is_file() and p.suffix != ".pyc"
    }
    root = Path(__file__).parent.parent
    ours = {p.relative_to(root).as_posix() for package in ("bentos", "models") for p in (root / package).rglob("*.py")}
    assert inside == ours | {"bentofile.yaml"}
    assert not list(folder.rglob("*.safetensors"))
    told = (folder / "bento.yaml").read_text()
    assert model in told
    assert ":latest" not in told
    pins = (folder / "env" / "python" / "requirements.txt").read_text()
    assert "torch==" in pins
    assert not any(name in pins for name in ("dagster", "duckdb", "evidently", "lightgbm", "pandera", "ibis"))
    assert not list(built.staging.glob("bento-*"))


def test_a_model_carries_its_lineage(built: Home) -> None:
    told = registry.lineage(built, registry.model_tag(built, SHOWN, "dtrn", JUDGED))
    trained = lake.require(built, "dtrn", JUDGED)
    assert told["content"] == lake.content_hash(built.model("dtrn", JUDGED))
    assert (told["contract"], told["code"], told["run"], told["parent"]) == (trained.contract, trained.code, "run-1", "")
    assert all(content in told["data"] for content in trained.inputs.values())


def test_without_a_parity_of_this_very_bento_nobody_is_promoted(copied: Home) -> None:
    manifest = copied.manifest("parity", JUDGED)
    kept = manifest.read_text()
    manifest.unlink()
    with pytest.raises(lake.Missing, match="parity of 2026-04-01 is needed"):
        crown(copied)
    built = lake.require(copied, "bento", JUDGED)
    manifest.write_text(kept.replace(built.content, "0" * 64))
    with pytest.raises(lake.Missing, match="is that of another bento; materialise parity"):
        crown(copied)
    assert registry.champion(copied) is None


@pytest.mark.parametrize("winner", [{"name": "mmoe"}, {"content": "0" * 64}])
def test_a_bento_of_another_than_the_winner_is_not_crowned(copied: Home, winner: dict[str, str]) -> None:
    # Judged again with another outcome, and not packaged since.
    verdict = packaging.read(copied.verdict(JUDGED))
    lake.write_json(copied.verdict(JUDGED), verdict | {"challenger": verdict["challenger"] | winner})
    with pytest.raises(lake.Missing, match=r"does not hold the \w+ that won; materialise packaged_model, bento and parity"):
        crown(copied)
    assert registry.champion(copied) is None


def test_a_day_judged_before_the_one_before_it_was_crowned_is_judged_again(copied: Home) -> None:
    # As after a backfill of two days from the UI: both were judged while nobody reigned.
    registry.promote(
        copied, judged_day="2026-03-31", name="mmoe", tag="m:1", bento="b:1", against=None, who="", why="", when=WHEN
    )
    with pytest.raises(lake.Missing, match=r"judged against no champion on 2026-04-01, and m:1 reigns by now; judge"):
        crown(copied)
    reigning = registry.champion(copied)
    assert reigning is not None
    assert reigning.tag == "m:1"
    judge(copied, against="m:1")
    change = crown(copied)
    assert change is not None
    assert change.replaced == "m:1"


def test_a_day_that_is_blocked_by_now_gets_no_parity(copied: Home) -> None:
    events = copied.manifest("events", "2026-03-31")
    events.write_text(json.dumps(json.loads(events.read_text()) | {"blocked": "too many bad rows"}))
    with pytest.raises(lake.Blocked, match="events of 2026-03-31 is blocked: too many bad rows"):
        packaging.compare(copied, SHOWN, JUDGED)


@pytest.mark.parametrize(("empty", "asked"), [([], JUDGED), ([JUDGED], "2026-03-31"), ([JUDGED, "2026-03-31"], JUDGED)])
def test_of_days_judged_together_parity_is_that_of_the_newest_with_a_sample(
    copied: Home, monkeypatch: pytest.MonkeyPatch, empty: list[str], asked: str
) -> None:
    terms = SHOWN.model_copy(update={"training": SHOWN.training.model_copy(update={"judged_days": 2})})
    assert terms.verdict_days(JUDGED) == ["2026-03-31", JUDGED]
    for day in empty:
        manifest = json.loads(copied.manifest("samples", day).read_text())
        manifest["counts"]["samples"] = 0
        copied.manifest("samples", day).write_text(json.dumps(manifest))
    copied.promotion("parity", JUDGED).unlink(missing_ok=True)
    monkeypatch.setattr(served, "start", lambda *_, until, **__: pytest.fail(f"asked for {until}"))
    with pytest.raises(pytest.fail.Exception, match=f"asked for {asked}"):
        packaging.compare(copied, terms, JUDGED)


def test_an_artifact_that_was_not_judged_is_not_packaged(copied: Home) -> None:
    spec = copied.model("dtrn", JUDGED) / "spec.json"
    spec.write_text(spec.read_text() + "\n")
    with pytest.raises(ValueError, match=r"is not the artifact that was judged .*materialise dtrn and verdict"):
        packaging.package(copied, SHOWN, JUDGED, "run-2")


def test_a_build_that_fails_says_why_and_leaves_the_bento_that_is_there(copied: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = lake.content_hash(bento_folder(copied)), sorted(copied.stored("bentos").iterdir())
    bad = copied.root / "bentofile.yaml"
    bad.write_text('service: "bentos.nowhere:Service"\n')
    monkeypatch.setattr(packaging, "BENTOFILE", bad)
    folder = bento_folder(copied)
    copied.promotion("bento", JUDGED).unlink()
    # Under the very tag that the build will have, so that a build that makes room first is found out.
    monkeypatch.setattr(lake, "content_hash", _tagged(folder.name.rsplit("-", 1)[1]))
    with pytest.raises(ValueError, match=r"(?s)bentoml build of dtrn-shown:.* failed.*bentos.nowhere"):
        packaging.build_bento(copied, SHOWN, JUDGED)
    monkeypatch.undo()
    assert (lake.content_hash(folder), sorted(copied.stored("bentos").iterdir())) == before
    assert not list(copied.staging.iterdir())


def _tagged(version: str) -> Callable[[Path], str]:
    """`lake.content_hash` that takes a build's context for that of the bento `version`."""
    real = lake.content_hash
    return lambda path: version if path.name == "context" else real(path)


def test_a_bento_built_again_takes_the_place_of_the_one_that_was_there(copied: Home) -> None:
    folder = bento_folder(copied)
    (folder / "src" / "left.txt").write_text("over")
    copied.promotion("bento", JUDGED).unlink()
    built = packaging.build_bento(copied, SHOWN, JUDGED)
    assert built is not None
    assert built[1]
    assert (folder / "bento.yaml").is_file()
    assert not (folder / "src" / "left.txt").exists()
    assert not list(copied.staging.iterdir())


@pytest.mark.parametrize(
    ("failures", "attempts", "why"),
    [
        ([served.NotServed("it did not start")], 2, ""),
        ([served.NotServed("it did not start")] * 3, 3, "it did not start"),
        ([packaging.NotTheSame("it differs")], 1, "it differs"),
        ([lake.Missing("build it first")], 1, "build it first"),
    ],
)
def test_only_what_may_go_well_the_next_time_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: list[Exception], attempts: int, why: str
) -> None:
    tried: list[str] = []
    waits: list[float] = []

    def compare(home: Home, terms: Any, day: str, say: served.Say) -> packaging.Result:
        tried.append(day)
        if len(tried) <= len(failures):
            raise failures[len(tried) - 1]
        return None

    wait = dg.RetryPolicy.calculate_delay

    def without_waiting(policy: dg.RetryPolicy, attempt: int) -> float:
        waits.append(wait(policy, attempt))
        return 0

    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", without_waiting)
    monkeypatch.setattr(packaging, "compare", compare)
    monkeypatch.setattr(Project, "terms", property(lambda _: SHOWN))
    days = dg.DailyPartitionsDefinition(start_date="2026-03-27", end_date="2026-04-03")
    asset = packaging.parity.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days, deps=[]))
    definitions = dg.Definitions([asset], resources={"project": Project(contract="shown", root=str(tmp_path))})
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(partition_key=JUDGED, raise_on_error=False)
    assert tried == [JUDGED] * attempts
    assert waits == [5, 15, 35][: len(waits)]
    assert result.success is not bool(why)
    assert [sensors.reason(e) for e in result.filter_events(lambda e: e.is_step_failure)] == ([why] if why else [])


@pytest.mark.parametrize("promote", [True, False])
def test_the_assets_say_what_they_did(copied: Home, promote: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not promote:
        judge(copied, promote=False)
    monkeypatch.setattr(Project, "terms", property(lambda _: SHOWN))
    days = dg.DailyPartitionsDefinition(start_date="2026-03-27", end_date="2026-04-03")
    chain: list[Any] = [packaging.packaged_model, packaging.bento, packaging.parity, packaging.champion]
    dated = [asset.map_asset_specs(lambda spec: spec.replace_attributes(partitions_def=days)) for asset in chain]
    with dg.DagsterInstance.ephemeral() as instance:
        project = Project(contract="shown", root=str(copied.root))
        result = dg.materialize(dated, partition_key=JUDGED, resources={"project": project}, instance=instance)
    assert result.success
    told: dict[str, Any] = {
        m.asset_key.to_user_string(): m.metadata for m in (e.materialization for e in result.get_asset_materialization_events())
    }
    assert set(told) == {*STEPS, "champion"}
    done = {name: metadata["recomputed"].value for name, metadata in told.items()}
    assert done == dict.fromkeys(STEPS, 0) | {"champion": int(promote)}
    assert [name for name in told if "note" in told[name]] == ([] if promote else list(STEPS))
    days_told = {name: metadata["days"].value[JUDGED] for name, metadata in told.items()}
    if promote:
        assert days_told["parity"]["max_difference"] < 1e-6
        assert days_told["champion"] == days_told["packaged_model"]["tag"]
    else:
        assert set(days_told.values()) == {"the champion stays"}
        assert registry.champion(copied) is None


@pytest.mark.parametrize(("days", "prefix"), [(["2026-03-30"], ""), (["2026-03-29", "2026-03-30"], "2026-03-30: ")])
def test_what_was_made_is_told_in_words(days: list[str], prefix: str) -> None:
    lines: list[str] = []
    context: Any = SimpleNamespace(partition_keys=days, log=SimpleNamespace(info=lines.append))
    found = lake.Manifest("parity", "2026-03-30", {}, "", "", "", detail={"rows": 12, "max_difference": 2e-7})
    packaging._told(context, {**dict.fromkeys(days), "2026-03-30": (found, False)})
    assert lines[-1] == f"{prefix}rows 12, max difference 2e-07 (unchanged)"
    assert lines[:-1] == [f"2026-03-29: {packaging.STAYS}"] * (len(days) - 1)
