"""What the leaderboard's page says follows from the runs: intervals as scipy has them, yes and no from made-up figures."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks import leaderboard_page, leaderboard_sections, plan, standing
from benchmarks.leaderboard_sections import ablations, beside_baselines, beside_lightgbm, own_single_task
from benchmarks.runs import Record, Where
from benchmarks.standing import Board, Claim, Estimate, altogether, estimate
from tests import board
from tests.board import TASKS, TRIALS, of_day, of_worlds

SMALL = asdict(plan.worlds(seeds=plan.SEEDS[:1])[0])
FAMILY = dict.fromkeys(plan.FAMILY, 0.7)
FIRST = f"simulated seed {plan.SEEDS[0]}"


def cell(records: list[Record], conflict: tuple[float, float] = (1, 0)) -> Board:
    return standing.cell(records, conflict, SMALL)


# intervals


def test_an_interval_over_worlds_is_students() -> None:
    a, b = np.random.default_rng(1).normal(0.7, 0.02, (2, 5))
    found = cell(of_worlds({"dtrn": list(a), "dmt": list(b)}, (1, 0))).difference(("dtrn", ""), ("dmt", ""), "cart")
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(a - b), interval.low, interval.high), abs=1e-12)
    assert found.n == 5
    assert found.half == pytest.approx((interval.high - interval.low) / 2)
    assert found.noise == (expected.pvalue > 0.05)
    assert estimate([]) is None
    assert estimate([0.3]) == Estimate(0.3)
    assert Estimate(0.3).half is None
    assert Estimate(0.3).noise
    assert not Estimate(0.3, 0.1, 0.5).noise
    assert not Estimate(-0.3, -0.5, -0.1).noise


def test_only_worlds_that_both_have_are_paired_and_only_the_newest_of_each_counts() -> None:
    records = of_worlds({"dtrn": [0.7, 0.8, 0.9, 0.7, 0.7]}, (1, 0)) + of_worlds({"dmt": [0.6, 0.6, 0.6]}, (1, 0), seeds=3)
    found = cell(records).difference(("dtrn", ""), ("dmt", ""), "buy")
    assert found
    assert (found.mean, found.n) == (pytest.approx(0.2), 3)
    again = of_worlds({"dmt": [0.5]}, (1, 0), seeds=1)
    assert cell(records + again).soft("dmt", "buy")[FIRST] == 0.5
    other = [{**r, "content": "of another log"} for r in of_worlds({"dmt": [0.4]}, (1, 0), seeds=1)]
    newest = cell(records + other)
    assert newest.soft("dmt", "buy")[FIRST] == 0.4
    assert FIRST not in newest.soft("dtrn", "buy")


def test_a_cell_holds_its_own_worlds_only() -> None:
    records = of_worlds({"dtrn": 0.7}, (1, 0), 1) + of_worlds({"dtrn": 0.8}, (0, 1), 2)
    large = board.record(plan.run(plan.of_world(plan.LARGE), "dtrn", TRIALS), board.soft(dict.fromkeys(TASKS, 0.9)))
    same = of_worlds({"dtrn": 0.6}, (1, 1), 1)
    assert len(cell(records, (1, 0)).runs("dtrn")) == 1
    assert len(cell(records, (0, 1)).runs("dtrn")) == 2
    assert set(cell([large, *same], (1, 1)).soft("dtrn", "buy").values()) == {0.6}
    assert set(standing.cell([large, *same], (1, 1), asdict(plan.LARGE)).soft("dtrn", "buy").values()) == {0.9}


def test_a_share_needs_popularity_and_something_to_gain() -> None:
    records = of_worlds({"popularity": 0.6, "dtrn": [0.6, 0.75, 0.9, 0.5, 0.8]}, (1, 0))
    assert list(cell(records).share("dtrn", "cart").values()) == pytest.approx([0, 0.5, 1, -1 / 3, 2 / 3])
    assert cell(records[1:2]).share("dtrn", "cart") == {}
    assert standing.share({"soft": 0.6, "best_soft": 0.6}, 0.6) is None
    assert standing.share({"auc": 0.6}, 0.6) is None


def test_a_difference_on_a_real_day_is_paired_over_resamples() -> None:
    ours, theirs = of_day({"dtrn": 0.8, "dmt": 0.79}, "2017-12-02")
    d = standing.resampled(ours, theirs, "cart")
    drawn = np.array(ours["tasks"]["cart"]["resampled"]) - np.array(theirs["tasks"]["cart"]["resampled"])
    assert d
    assert (d.mean, d.low, d.high) == pytest.approx((0.01, *np.quantile(drawn, [0.025, 0.975])))
    assert d.high is not None
    assert d.low is not None
    assert d.high - d.low < 0.1  # apart, each spreads over 0.2
    assert standing.resampled(ours, {**theirs, "content": "other rows"}, "cart") is None
    theirs["tasks"]["cart"]["resampled"][0] = None
    d = standing.resampled(ours, theirs, "cart")
    assert d
    assert d.low == pytest.approx(np.quantile(drawn[1:], 0.025))
    theirs["tasks"]["cart"]["auc"] = None
    assert standing.resampled(ours, theirs, "cart") is None


# claims


def claim(claims: list[Claim], *words: str) -> Claim:
    (one,) = [c for c in claims if all(word in c.wanted for word in words)]
    return one


@pytest.mark.parametrize(
    ("dtrn", "met"),
    [
        ([0.71] * 5, True),
        ([0.74, 0.70, 0.76, 0.72, 0.74], True),  # below the best on average, by less than the interval
        ([0.70, 0.71, 0.70, 0.72, 0.71], False),
    ],
)
def test_dtrn_is_held_against_the_best_of_the_family(dtrn: list[float], met: bool) -> None:
    best = 0.70 if met and dtrn[0] == 0.71 else 0.735
    records = of_worlds({**FAMILY, "ple": best, "single-task": 0.69, "dtrn": dtrn, "popularity": 0.6, "lightgbm": 0.9}, (1, 0))
    told = claim(standing.not_below({(1, 0): cell(records)}, TASKS), "selection 1, sign 0", "cart")
    assert told.met is met
    d = stats.ttest_rel(dtrn, [best] * 5).confidence_interval(0.95).high if len(set(dtrn)) > 1 else 0.01
    assert met == (d >= 0)
    if best == 0.735:
        assert "to ple, 5 worlds" in told.measured
        assert f"{np.mean(dtrn) - best:+.3f}" in told.measured


def test_the_best_of_the_family_is_known_only_when_all_were_scored_where_dtrn_was() -> None:
    records = of_worlds({**FAMILY, "dtrn": 0.6}, (0, 0))
    assert standing.best_rival(cell(records, (0, 0)), "buy") in plan.FAMILY
    assert {c.met for c in standing.not_below({(0, 0): cell(records, (0, 0))}, TASKS)} == {False}
    missing = [r for r in records if (r["model"], r["where"]["world"]["seed"]) != ("ple", plan.SEEDS[2])]
    told = standing.not_below({(0, 0): cell(missing, (0, 0))}, TASKS)
    assert {(c.met, c.measured) for c in told} == {(None, "not measured on two worlds yet")}
    for worlds in (1, 2, len(plan.SEEDS) - 1):  # far below, but not everywhere yet
        few = cell(of_worlds({**FAMILY, "dtrn": 0.6}, (0, 0), worlds), (0, 0))
        assert {c.met for c in standing.not_below({(0, 0): few}, TASKS)} == {None}


@pytest.mark.parametrize(("gain", "met"), [(0.051, True), (0.049, False)])
def test_dtrn_must_be_above_dmt_on_the_starved_task_where_selections_conflict(gain: float, met: bool) -> None:
    boards = {}
    for conflict in plan.CELLS:
        records = of_worlds({"dmt": 0.7, "dtrn": 0.7 + gain}, conflict)
        for record in records:
            for task in TASKS:
                if task != "cart":
                    record["tasks"][task]["soft"] = 0.5
        boards[conflict] = cell(records, conflict)
    told = standing.above_dmt(boards)
    assert [c.met for c in told] == [met, met]
    assert all("selection 1" in c.wanted and "cart" in c.wanted for c in told)
    assert f"{gain:+.3f}" in told[0].measured
    for worlds in (1, 2, len(plan.SEEDS) - 1):
        (few,) = standing.above_dmt({(1, 0): cell(of_worlds({"dmt": 0.7, "dtrn": 0.9}, (1, 0), worlds))})
        assert few.met is None
    assert few.measured.endswith("4 worlds of 5")


def test_nine_tenths_of_what_is_reachable() -> None:
    def large(soft: float) -> Board:
        def run(model: str, auc: float) -> Record:
            return board.record(plan.run(plan.of_world(plan.LARGE), model, TRIALS), board.soft(dict.fromkeys(TASKS, auc), 0.8))

        return standing.cell([run("popularity", 0.6), run("dtrn", soft)], (1, 1), asdict(plan.LARGE))

    assert [c.met for c in standing.reached(large(0.781), TASKS)] == [True] * 3
    below = standing.reached(large(0.779), TASKS)
    assert [c.met for c in below] == [False] * 3
    assert below[0].measured == "89.5 %, one world"
    assert [c.met for c in standing.reached(Board({}), TASKS)] == [None] * 3


def test_one_that_fails_is_no_and_one_that_is_missing_is_not_measured() -> None:
    yes, no, unknown = (Claim("", "", met) for met in (True, False, None))
    assert altogether([yes, yes]) is True
    assert altogether([yes, unknown]) is None
    assert altogether([yes, unknown, no]) is False
    assert altogether([]) is None


def test_the_page_says_where_dtrn_does_not_beat_the_simple_models() -> None:
    days = {
        "2017-12-01": Board.of(of_day({"popularity": 0.5, "lightgbm": 0.8, "dtrn": 0.9, "mmoe": 0.7}, "2017-12-01", 1e-4)),
        "2017-12-02": Board.of(of_day({"popularity": 0.5, "lightgbm": 0.8, "dtrn": 0.8, "mmoe": 0.7}, "2017-12-02", 0.1)),
    }
    told = beside_baselines("taobao", days)
    assert "| model | above popularity | below popularity | above lightgbm | below lightgbm | of |" in told
    assert "| mmoe | 3 | 0 | 0 | 3 | 6 |" in told
    assert "| dtrn | 6 | 0 | 3 | 0 | 6 |" in told
    assert "**DTRN does not beat lightgbm on 3 of 6.**" in told
    few = {"2017-12-02": Board.of(of_day({"lightgbm": 0.8, "dtrn": 0.9}, "2017-12-02", 1e-4, positives=29))}
    told = beside_baselines("taobao", few)
    assert "| dtrn | 0 | 0 | 0 | 0 | 0 |" in told
    assert not any("does not beat" in line for line in told)


def test_in_the_worlds_it_says_so_too() -> None:
    levels = {(0, 0): 0.8, (0, 1): 0.6, (1, 0): [0.6, 0.8, 0.7, 0.7, 0.7]}
    boards = {c: cell(of_worlds({"lightgbm": 0.7, "dtrn": level}, c), c) for c, level in levels.items()}
    told = beside_lightgbm(boards, ["cart"])  # type: ignore[arg-type]
    assert "clearly above on 1, clearly below on 1 of 3 kinds of world and tasks." in told
    assert "not measured" in beside_lightgbm(
        {(0, 0): cell(of_worlds({"lightgbm": 0.7, "dtrn": 0.8}, (0, 0), 1), (0, 0))}, ["cart"]
    )


def test_what_a_part_is_worth_is_told_over_all_kinds_of_world() -> None:
    levels = {(0, 0): 0.8, (0, 1): 0.6, (1, 0): [0.6, 0.8, 0.7, 0.7, 0.7]}
    boards = {c: cell(of_worlds({"dtrn-tim": 0.7, "dtrn": level}, c), c) for c, level in levels.items()}
    boards[1, 1] = cell(of_worlds({"dtrn-tim": 0.7, "dtrn": 0.9}, (1, 1), 1), (1, 1))  # one world is not all of them
    told = leaderboard_sections.beside_controls(boards, ["cart"])  # type: ignore[arg-type]
    assert told[-2] == f"| dtrn-tim | {plan.ABOUT['dtrn-tim']} | -0.1000 to +0.1000 | 1 | 1 | 3 |"
    assert len([line for line in told if line.startswith("| d")]) == 1
    assert leaderboard_sections.beside_controls({(1, 1): boards[1, 1]}, ["cart"]) == []  # type: ignore[dict-item]


# the page


def written(tmp_path: Path, records: list[Record]) -> tuple[str, dict[str, Any]]:
    page, summary = tmp_path / "docs" / "leaderboard.md", tmp_path / "leaderboard.json"
    leaderboard_page.write(records, TRIALS, page=page, summary=summary)
    told: dict[str, Any] = json.loads(summary.read_text())
    return page.read_text(), told


def everything() -> list[Record]:
    models = {"popularity": 0.6, "lightgbm": 0.65, **FAMILY, "dtrn": [0.77, 0.78, 0.76, 0.77, 0.78], "dtrn+single-task": 0.76}
    records = [r for conflict in plan.CELLS for r in of_worlds(models, conflict)]
    ablated = [plan.of_world(w) for w in plan.worlds([plan.ABLATED])]
    for variant in plan.variants(board.CONTRACT.actions):
        records += [
            board.record(plan.run(where, "dtrn", TRIALS, variant), board.soft(dict.fromkeys(TASKS, 0.7))) for where in ablated
        ]
    for model, auc in (("popularity", 0.6), ("dtrn", 0.89)):
        records.append(board.record(plan.run(plan.of_world(plan.LARGE), model, TRIALS), board.soft(dict.fromkeys(TASKS, auc))))
    records += of_day({"popularity": 0.5, "lightgbm": 0.8, "dmt": 0.805, "dtrn": 0.81}, "2017-12-01")
    for run in plan.angled(ablated[0], TRIALS):
        cosines = {"click, cart": [0.1, -0.2], "click, buy": [None, 0.3], "cart, buy": [0.5, 0.4]}
        records.append(board.record(run, {}, angles={"epoch": [0.0, 1.0], "cosines": cosines}))
    return records


def test_a_page_of_no_run_says_that_nothing_is_measured(tmp_path: Path) -> None:
    text, summary = written(tmp_path, [])
    assert len(re.findall(r"\*\*[^*]*: not measured\.\*\*", text)) == 3
    assert ": yes.**" not in text
    assert ": no.**" not in text
    assert "No real log has a run on file." in text
    assert not list((tmp_path / "docs").glob("*.svg"))
    assert {c["met"] for c in summary["claims"].values()} == {None}


def test_the_page_tells_what_the_runs_say(tmp_path: Path) -> None:
    text, summary = written(tmp_path, everything())
    assert len(re.findall(r"\*\*[^*]*: yes\.\*\*", text)) == 3
    assert {c["met"] for c in summary["claims"].values()} == {True}
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text):
        drawn = (tmp_path / "docs" / picture).read_text()
        assert drawn.startswith("<?xml")
        assert "dc:date" not in drawn
    assert text.count("![") == 2
    section = text.split("### selection 1, sign 0")[1].split("### selection 1, sign 1")[0]
    (row,) = [line for line in section.splitlines() if line.startswith("| dtrn |")]
    assert row.startswith("| dtrn | 0.57 ± 0.03 | 0.7720 (0.7820) |")  # (0.772 − 0.6) / 0.3
    assert row.endswith("| 1,234 (567) | 10 (9) |")
    assert "Means over 5 worlds." in section
    (beside,) = [line for line in section.splitlines() if line.startswith("| lightgbm | **")]
    assert beside == "| lightgbm |" + 3 * " **+0.1220 (+0.1116 to +0.1324)** |" + " 5 |"
    assert "| *true probabilities* | 1 | 0.9000 (0.9000) |" in section
    large = text.split("## One world of selection 1, sign 1, 2 M samples")[1].split("## Real logs")[0]
    assert "| dtrn | 0.97 |" in large
    real = text.split("### taobao, 2017-12-01")[1].split("\n## ")[0]
    assert "click 300 positives from 50 users" in real
    assert re.search(r"\| dmt \| 0\.8050 · \+0\.0050 \(-0\.\d+ to \+0\.\d+\) noise \|", real)
    assert "| dtrn | 0.8100 | " in real
    ablations = text.split("## Ablations")[1].split("## Negative")[0]
    for variant in plan.variants(board.CONTRACT.actions):
        assert f"| {variant.name} | 0.33 |" in ablations or f"| {variant.name} | 0.33 ± 0.00 |" in ablations
        assert f"| {variant.name} | **+0.0720" in ablations
    transfer = text.split("## Negative transfer")[1].split("## How")[0]
    assert "| mmoe | -0.05, 1 of 2 | +0.30, 0 of 1 | +0.45, 0 of 2 |" in transfer
    assert "did not run in every kind of world for: dmt." in transfer
    assert "| selection 0, sign 1: dtrn − dtrn+single-task | **+0.0120 (+0.0016 to +0.0224)** |" in transfer
    assert "| selection 0, sign 1: mmoe − single-task | +0.0000 (+0.0000 to +0.0000) |" in transfer
    assert summary["worlds"]["selection 1, sign 0"]["dtrn"]["tasks"]["buy"]["share"]["mean"] == pytest.approx(0.172 / 0.3)
    assert summary["gradients"]["mmoe"]["epoch"] == [0, 1]
    assert written(tmp_path / "again", everything()) == (text, summary)
    for picture in ("leaderboard-shares.svg", "leaderboard-gradients.svg"):
        assert (tmp_path / "docs" / picture).read_bytes() == (tmp_path / "again" / "docs" / picture).read_bytes()


def section(records: list[Record]) -> list[str]:
    """The lines on the worlds of one kind, of one task."""
    return leaderboard_sections.worlds({(1, 0): cell(records)}, ["cart"], None)


def row(lines: list[str], model: str) -> str:
    """The line of a model with its share."""
    return next((line for line in lines if line.startswith(f"| {model} |") and "±" in line), "")


def test_means_are_over_the_same_worlds() -> None:
    ours = of_worlds({"popularity": 0.6, "dtrn": [0.7, 0.71, 0.72, 0.73, 0.74]}, (1, 0))
    told = section(ours + of_worlds({"dmt": [0.69, 0.702]}, (1, 0), 2))
    assert row(told, "dtrn").startswith("| dtrn | 0.40 ± 0.07 |")
    assert not row(told, "dmt"), "a mean over two worlds beside one over five"
    assert "Means over 5 worlds. Not in all of them yet, and so not here: dmt (2)." in told
    more = of_worlds({"mmoe": [0.9, 0.9, 0.1, 0.1, 0.1]}, (1, 0))
    told = section([r for r in ours if r["where"]["world"]["seed"] in plan.SEEDS[:2]] + more)
    assert "0.9000" in row(told, "mmoe"), "over the two worlds that DTRN ran in"
    assert "Means over 2 worlds." in told


def test_an_interval_over_fewer_worlds_is_not_bold() -> None:
    ours = of_worlds({"dtrn": [0.7, 0.71, 0.72, 0.73, 0.74]}, (1, 0))
    for seeds, cells in ((2, "+0.0100 (+0.0100 to +0.0100) | 2"), (5, "**+0.0100 (+0.0100 to +0.0100)** | 5")):
        told = section(ours + of_worlds({"dmt": [0.69, 0.7, 0.71, 0.72, 0.73]}, (1, 0), seeds))
        assert f"| dmt | {cells} |" in told


def test_seconds_of_another_processor_are_not_put_beside() -> None:
    slow = {"machine": {"cpu": "an old one"}, "seconds": 1000.0, "processor_seconds": 900.0}
    records = of_worlds({"popularity": 0.6, "dtrn": 0.7}, (1, 0))
    records = [{**r, **slow} if r["where"]["world"]["seed"] == plan.SEEDS[0] else r for r in records]
    told = section(records + [{**r, **slow} for r in of_worlds({"dmt": 0.7}, (1, 0))])
    assert row(told, "dtrn").endswith("| 1,234 (567) | 10 (9) |")  # of four worlds
    assert row(told, "dmt").endswith("| 1,234 (567) | – |")


def test_a_day_of_which_only_an_ablation_is_on_file_is_shown(tmp_path: Path) -> None:
    variant = plan.variants(board.CONTRACT.actions)[0]
    (whole,) = of_day({"dtrn": 0.8}, "2017-12-01")
    told = board.record(plan.run(Where("taobao", "2017-12-01"), "dtrn", TRIALS, variant), whole["tasks"])
    text, _ = written(tmp_path, [told])
    assert "click 300 positives from 50 users" in text
    assert f"| {variant.name} | 0.8000" in text


def test_runs_of_settings_that_are_no_longer_the_plans_are_left_out(tmp_path: Path) -> None:
    good = of_worlds({"dtrn": 0.7}, (0, 0))
    stale = [
        {**good[0], "terms": {**good[0]["terms"], "learning_rate": 1.0}},
        {**good[1], "recipe": {**good[1]["recipe"], "layers": 9}},
        {**good[2], "data": {**good[2]["data"], "tasks": ["click"]}},
        {**good[3], "model": "a model that was renamed"},
        {**good[4], "variant": "an ablation that was dropped"},
    ]
    assert plan.up_to_date([*stale, *good], TRIALS) == good
    real = of_day({"dtrn": 0.8}, "2017-12-01")
    assert plan.up_to_date(real, TRIALS) == real
    assert plan.up_to_date([{**real[0], "terms": {}}], TRIALS) == []
    text, _ = written(tmp_path, [*stale, *good])
    assert "5 runs stand here; 5 more are on file under settings that are no longer the plan's" in text


def test_a_multi_task_model_is_held_against_single_task_models_of_its_own_bottom() -> None:
    assert own_single_task("ple") == "single-task"
    assert own_single_task("dtrn") == "dtrn+single-task"
    assert own_single_task("dtrn+ple") == "dtrn+single-task"
    assert own_single_task("lightgbm") is None


def test_models_of_dtrns_own_parts_stand_among_its_ablations() -> None:
    relative = plan.run(plan.of_world(plan.worlds([plan.ABLATED])[0]), "dtrn", TRIALS)
    told = board.soft(dict.fromkeys(TASKS, 0.7))
    other = {**board.record(relative, told), "model": "dtrn-tim"}
    records = [*of_worlds({"dtrn": 0.75, "dmt": 0.74}, plan.ABLATED, 1), other]
    lines = ablations(cell(records, plan.ABLATED), TASKS)
    assert [line.split(" | ")[0] for line in lines if line.startswith("| d")] == ["| dtrn", "| dtrn-tim", "| dtrn-tim"]
    assert ablations(cell([other], plan.ABLATED), TASKS)[2] == "Not measured yet."
    assert ablations(cell(of_worlds({"dtrn": 0.75}, plan.ABLATED, 1), plan.ABLATED), TASKS)[2] == "Not measured yet."
