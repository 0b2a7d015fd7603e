"""Days that are unlike the days before them: each check finds the one that was made for it and nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets import acceptance, histories, ingest, lake, plausibility
from assets.project import Project
from models.contract import Contract, ContractError, load
from models.home import Home
from orchestration import days

TOML = """
name = "shop"
shape = "events"
[source]
format = "csv"
header = false
columns = ["u", "i", "c", "b", "t"]
[columns]
user = "u"
item = "i"
behaviour = "b"
[time]
column = "t"
kind = "epoch_s"
[calendar]
first_day = 2024-01-01
last_day = 2024-01-12
[item_features]
category = "c"
[behaviours.view]
values = ["pv"]
[tasks.view]
behaviours = ["view"]
horizon_hours = 24
[validation]
max_bad_share = 0.5
"""
START = 1_704_067_200  # 2024-01-01 00:00 UTC
SEEN = datetime(2030, 6, 1, tzinfo=UTC)  # years later: a closed log does not grow stale
TAOBAO = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "taobao_user_behavior_head.csv"


def day_of(number: int) -> str:
    return f"2024-01-{number:02}"


def rows(
    day: int, count: int = 48, hours: float = 24, item: int = 1, user: int = 1, unknown: int = 0, nulls: int = 0
) -> list[tuple[Any, ...]]:
    """`count` good rows evenly over the first `hours` of a day, and `unknown` ones; ids grow from day to day."""
    out: list[tuple[Any, ...]] = []
    for n in range(count + unknown):
        second = START + (day - 1) * 86_400 + int((n + 0.5) * hours * 3600 / (count + unknown))
        category = None if n < nulls else n % 5
        out.append((user * (10 * day + n), item * (1000 * day + n), category, "pv" if n < count else "like", second))
    return out


def contract(folder: Path, checks: str = "") -> Contract:
    path = folder / "shop.toml"
    path.write_text(TOML + checks)
    return load(path)


def put(folder: Path, *days: list[tuple[Any, ...]], name: str = "log.csv") -> None:
    (folder / "in").mkdir(exist_ok=True)
    text = "".join(",".join("" if v is None else str(v) for v in row) + "\n" for day in days for row in day)
    (folder / "in" / name).write_text(text)


def home_of(folder: Path) -> Home:
    return Home(folder / "home", "shop")


def take_in(folder: Path, terms: Contract, days: list[int]) -> Home:
    home = home_of(folder)
    ingest.accept(home, terms, str(folder / "in"), SEEN)
    for day in days:
        ingest.events(home, terms, day_of(day))
    return home


def failed(home: Home, terms: Contract, day: int) -> set[str]:
    """The checks that a day fails."""
    return {name for name in plausibility.CHECKS if acceptance.plausible(home, terms, name, [day_of(day)])[day_of(day)].wrong}


def test_what_is_wrong_with_many_days_is_told_of_the_first_and_what_to_do_once() -> None:
    found = [
        plausibility.Wrong(day_of(day), f"{day} rows", "30 to 90 rows", f"look for {'twice' if day > 90 else 'less'}", "volume")
        for day in (1, 2, 3, 97, 98)
    ]
    said = plausibility.told(found)
    assert said.startswith(f"5 days. {day_of(1)}: 1 rows came, and expected was 30 to 90 rows; {day_of(2)}: ")
    assert "; and 2 more. Look for less, look for twice, or when the days are right add them to checks.unusual_days" in said
    assert said.count("./dtrn ingest") == 1
    assert day_of(97) not in said
    assert plausibility.told(found[:3]).count("look for less") == 0
    assert "more" not in plausibility.told(found[:3]).split(".")[1]
    assert plausibility.told(found[:1]) == str(found[0])


# a log with every kind of bad day among good ones


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Contract]:
    folder = tmp_path_factory.mktemp("damaged")
    put(
        folder,
        *(rows(day) for day in (1, 2, 3, 4)),
        rows(5, count=5),
        rows(6),
        rows(7, count=480),
        rows(8, count=24, hours=12),
        rows(9, unknown=2),
        rows(10, nulls=15),
        rows(11, item=1000),
        rows(12, user=-1),
    )
    terms = contract(folder)
    return take_in(folder, terms, list(range(1, 13))), terms


@pytest.mark.parametrize(
    ("day", "check", "said"),
    [
        (5, "volume", r"5 rows came, and expected was 14 to 144 rows \(0\.3 to 3 times 48, the median of 4 days"),
        (7, "volume", r"480 rows came, and expected was 14 to 144 rows .*delivered twice, or when the day is right add it to"),
        (8, "freshness", r"the newest event 12\.2 hours before the day's end came, and expected was an event within 6 hours"),
        (9, "unknown_behaviours", r"2 of 50 rows \(4\.00%\) with a behaviour that.*at most 0\.50%.*quarantine/day=2024-01-09"),
        (10, "null_rates", r"category null in 31\.2% of the rows came, and expected was at most 10\.0% .* 7 days before"),
        (
            11,
            "id_ranges",
            r"item from 11,000,000 to 11,047,000 came, and expected was item as large as 40 to 1,004,700 and never",
        ),
        (12, "id_ranges", r"user from -167 to -120 came, and expected was user as large as 1 to .*and never negative"),
    ],
)
def test_a_bad_day_fails_its_check_and_no_other(damaged: tuple[Home, Contract], day: int, check: str, said: str) -> None:
    home, terms = damaged
    assert failed(home, terms, day) == {check}
    wrong = str(acceptance.plausible(home, terms, check, [day_of(day)])[day_of(day)].wrong)
    assert re.search(said, wrong)
    assert wrong.startswith(f"{day_of(day)}: ")
    again = f"run ./dtrn ingest --day {day_of(day)} (in the UI: materialise events of {day_of(day)}) again"
    assert wrong.endswith(f"widen checks.{check} in the contract, then {again}")


@pytest.mark.parametrize("day", [1, 2, 3, 4, 6])
def test_a_good_day_fails_nothing_after_bad_ones_either(damaged: tuple[Home, Contract], day: int) -> None:
    home, terms = damaged
    assert failed(home, terms, day) == set()
    assert lake.require(home, "events", day_of(day))


def test_a_warning_lets_everyone_read(damaged: tuple[Home, Contract]) -> None:
    home, _ = damaged
    assert all(lake.require(home, "events", day_of(day)) for day in range(1, 13))


def test_the_first_days_pass_and_say_why(damaged: tuple[Home, Contract]) -> None:
    home, terms = damaged
    for check in ("volume", "null_rates", "id_ranges"):
        third = acceptance.plausible(home, terms, check, [day_of(3)])[day_of(3)]
        assert third.expected == ("not compared: 2 of the 7 days before it are there, hold rows and may be read; 3 are needed")
        assert "not compared" not in acceptance.plausible(home, terms, check, [day_of(4)])[day_of(4)].expected


def test_a_day_without_a_row_is_short_and_silent_and_no_measure_for_others(tmp_path: Path) -> None:
    put(tmp_path, *(rows(day) for day in (1, 2, 3, 5)))
    terms = contract(tmp_path)
    home = take_in(tmp_path, terms, [1, 2, 3, 4, 5])
    assert failed(home, terms, 4) == {"volume", "freshness"}
    assert failed(home, terms, 5) == set()
    assert "the median of 3 days" in acceptance.plausible(home, terms, "volume", [day_of(5)])[day_of(5)].expected


def test_a_day_that_is_known_to_be_unusual_passes_and_is_no_measure_for_others(tmp_path: Path) -> None:
    put(tmp_path, *(rows(day, count=480 if day in (4, 5) else 48) for day in range(1, 8)))
    terms = contract(tmp_path, "[checks]\ndays = 3\nunusual_days = [2024-01-04, 2024-01-05]\nfewest_days = 1\n")
    home = take_in(tmp_path, terms, list(range(1, 8)))
    assert [failed(home, terms, day) for day in range(1, 8)] == [set()] * 7
    told = acceptance.plausible(home, terms, "volume", [day_of(4), day_of(7)])
    assert "among checks.unusual_days" in told[day_of(4)].expected
    assert "the median of 1 day before" in told[day_of(7)].expected
    assert failed(home, contract(tmp_path, "[checks]\ndays = 3\nfewest_days = 1\n"), 4) == {"volume"}


def test_a_day_is_measured_as_counting_its_rows_does(tmp_path: Path) -> None:
    terms, told = contract(tmp_path), rows(1, count=700, nulls=31, item=-1)
    put(tmp_path, told)
    manifest = lake.require(take_in(tmp_path, terms, [1]), "events", day_of(1))
    found = manifest.detail["tally"]
    assert found["newest"] == max(r[4] for r in told) * 1000
    assert set(found["columns"]) == {"user", "item", "category"}
    for place, name in enumerate(("user", "item", "category")):
        values = [r[place] for r in told if r[place] is not None]
        column = found["columns"][name]
        assert (column["low"], column["high"]) == (min(values), max(values))
        assert column["distinct"] == pytest.approx(len(set(values)), rel=0.1)
        assert column.get("nulls") == (31 if name == "category" else None)


def test_a_text_has_no_range(tmp_path: Path) -> None:
    """Its numbers are hashes: only how many there are can be told."""
    text = TOML.replace('item = "i"', 'item = "i"\ntext = ["item"]').replace(
        '"c"\n[beh', '{ column = "c", kind = "text" }\n[beh'
    )
    (tmp_path / "shop.toml").write_text(text)
    terms = load(tmp_path / "shop.toml")
    put(tmp_path, *(rows(day, item=(-1) ** day * 10 ** (3 * day)) for day in range(1, 6)))
    home = take_in(tmp_path, terms, [1, 2, 3, 4, 5])
    columns = lake.require(home, "events", day_of(5)).detail["tally"]["columns"]
    assert {name: set(found) for name, found in columns.items()} == {
        "user": {"low", "high", "distinct"},
        "item": {"distinct"},
        "category": {"distinct", "nulls"},
    }
    assert failed(home, terms, 5) == set()


# severity


def error(check: str, more: str = "") -> str:
    return f'[checks]\n{more}\n[checks.{check}]\nseverity = "error"\n'


def test_an_error_blocks_every_later_reader_until_the_contract_says_that_the_day_is_right(tmp_path: Path) -> None:
    put(tmp_path, *(rows(day, count=5 if day == 4 else 48) for day in range(1, 6)))
    terms = contract(tmp_path, error("volume"))
    home = take_in(tmp_path, terms, [1, 2, 3, 4, 5])
    with pytest.raises(lake.Blocked, match=r"events of 2024-01-04 is blocked: 2024-01-04: 5 rows came, and expected was 14 to"):
        histories.build(home, terms, day_of(4))
    histories.build(home, terms, day_of(5))
    assert "the median of 3 days" in acceptance.plausible(home, terms, "volume", [day_of(5)])[day_of(5)].expected
    assert acceptance.bad_rows_within_limit(home, terms, [day_of(4)])[day_of(4)] == ("within the limit", "within the limit")
    assert plausibility.settle(home, terms) == {}
    content = lake.content_hash(home.events(day_of(4)))
    assert plausibility.settle(home, contract(tmp_path, error("volume", "unusual_days = [2024-01-04]"))) == {day_of(4): None}
    assert lake.require(home, "events", day_of(4)).content == content


def test_a_late_file_settles_its_neighbours_too(tmp_path: Path) -> None:
    """The fourth day was right beside three days cut short; with their other halves there, it is the one that is short."""
    put(tmp_path, *(rows(day, count=4) for day in (1, 2, 3)), rows(4, count=5))
    terms = contract(tmp_path, error("volume"))
    home = take_in(tmp_path, terms, [1, 2, 3, 4])
    assert lake.require(home, "events", day_of(4))
    put(tmp_path, *(rows(day) for day in (1, 2, 3)), name="late.csv")
    take_in(tmp_path, terms, [1, 2, 3])
    assert list(plausibility.settle(home, terms)) == [day_of(4)]
    with pytest.raises(lake.Blocked, match="look for a file that is missing"):
        lake.require(home, "events", day_of(4))


def job(folder: Path, *days: int) -> dg.ExecuteInProcessResult:
    calendar = dg.DailyPartitionsDefinition(day_of(1), end_date=day_of(13), timezone="UTC")
    modules = [ingest, acceptance, histories]
    assets = [
        a.map_asset_specs(lambda s: s.replace_attributes(partitions_def=calendar) if s.key.path != ["log_files"] else s)
        for a in dg.load_assets_from_modules(modules)
        if isinstance(a, dg.AssetsDefinition)
    ]
    project = Project(contract=str(folder / "shop.toml"), root=str(folder / "home"), log=str(folder / "in"))
    definitions = dg.Definitions(
        assets,
        asset_checks=dg.load_asset_checks_from_modules(modules),
        resources={"project": project},
        jobs=[dg.define_asset_job("everything", dg.AssetSelection.all())],
    )
    tags = {"dagster/asset_partition_range_start": day_of(days[0]), "dagster/asset_partition_range_end": day_of(days[-1])}
    return definitions.resolve_job_def("everything").execute_in_process(tags=tags, raise_on_error=False)


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    return {e.asset_key.path[-1] for e in result.get_asset_materialization_events() if e.asset_key}


def test_a_warning_shows_and_the_run_goes_on(tmp_path: Path) -> None:
    put(tmp_path, *(rows(day, count=5 if day == 4 else 48) for day in range(1, 5)))
    contract(tmp_path)
    result = job(tmp_path, 1, 4)
    assert result.success
    assert materialised(result) == {"log_files", "events", "histories"}
    found = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert set(plausibility.CHECKS) <= set(found)
    [wrong] = [e for e in found.values() if not e.passed]
    assert (wrong.check_name, wrong.severity) == ("volume", dg.AssetCheckSeverity.WARN)
    assert wrong.metadata["actual"].value == {day_of(4): "5 rows"}
    assert "14 to 144 rows" in str(wrong.metadata["expected"].value)
    assert str(wrong.description).startswith("2024-01-04: 5 rows came")


def test_an_error_fails_the_run_and_what_follows_does_not_run(tmp_path: Path) -> None:
    put(tmp_path, *(rows(day, count=5 if day == 4 else 48) for day in range(1, 5)))
    contract(tmp_path, error("volume"))
    result = job(tmp_path, 1, 4)
    assert not result.success
    assert materialised(result) == {"log_files", "events"}
    [wrong] = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert (wrong.check_name, wrong.severity) == ("volume", dg.AssetCheckSeverity.ERROR)
    told, *_ = [e.materialization for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey("events")]
    assert list(told.metadata["blocked"].value) == [day_of(4)]  # type: ignore[arg-type]
    contract(tmp_path, error("volume", "unusual_days = [2024-01-04]"))
    assert job(tmp_path, 4).success


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[checks]\nday = 3\n", r"checks\.day: no such key; known here: days, fewest_days, unusual_days, volume, freshness"),
        ("[checks.volume]\nleast = 3\n", r"checks\.volume\.least: no such key; known here: severity, smallest, largest"),
        ('[checks.volume]\nseverity = "fatal"\n', r"checks\.volume\.severity: .*'warn' or 'error'.*'fatal'"),
        ("[checks]\nfewest_days = 8\n", r"checks: fewest_days: 8 of the 7 days before a day can never be there"),
    ],
)
def test_a_mistake_in_the_section_is_refused_in_words(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        contract(tmp_path, text)


# the real log


@pytest.mark.skipif(not TAOBAO.is_file(), reason="../shared/data is not there")
def test_taobao_is_plausible(tmp_path: Path) -> None:
    terms, home = load("taobao"), Home(tmp_path, "taobao")
    ingest.accept(home, terms, str(TAOBAO), SEEN)
    for day in terms.days():
        ingest.events(home, terms, day)
    for check in plausibility.CHECKS:
        found = acceptance.plausible(home, terms, check, terms.days())
        assert [f.wrong for f in found.values()] == [None] * 9
        assert "not compared" not in found[terms.days()[-1]].expected


@pytest.mark.parametrize(("last", "few"), [(48, False), (15, False), (14, True), (400, False)])
def test_a_day_that_looks_cut_off_is_not_judged_in_a_demo(tmp_path: Path, last: int, few: bool) -> None:
    """Fewer than .3 of the 48 rows that the days before it have; more than usual is no cut."""
    terms, home = contract(tmp_path), home_of(tmp_path)
    put(tmp_path, *(rows(day) for day in range(1, 6)), rows(6, last))
    ingest.accept(home, terms, str(tmp_path / "in"), SEEN)
    for day in range(1, 7):
        ingest.events(home, terms, day_of(day))
    told = days.cut_off(home, terms, day_of(6))
    assert told.startswith("14 rows came, and expected was 14 to 144 rows") if few else told == ""
    assert days.cut_off(home, terms, day_of(7)) == "", "nothing is known of a day that is not there"
    together = terms.model_copy(update={"training": terms.training.model_copy(update={"judged_days": 2})})
    assert days.cut_off(home, together, day_of(6)) == "", "of days judged together none has to be whole"
