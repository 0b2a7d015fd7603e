"""A contract with a mistake is refused with the file, the key, what is wrong and what would be right."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from models.contract import DATASETS, ContractError, load
from tests import logs

TAOBAO = (DATASETS / "taobao.toml").read_text()
SIMULATED = (DATASETS / "simulated.toml").read_text()


@pytest.mark.parametrize(
    ("text", "old", "new", "message"),
    [
        (
            TAOBAO,
            'zone = "Asia/Shanghai"',
            'zone = "Asia/Shanghi"',
            r"time\.zone: 'Asia/Shanghi' is not a time zone; an IANA name such as",
        ),
        (TAOBAO, 'values = ["fav"]', 'value = ["fav"]', r"behaviours\.favourite\.value: no such key"),
        (TAOBAO, "[training]", "[training]\nwidth = 15", r"training\.width: Input should be a multiple of 2 \(came: 15\)"),
        (TAOBAO, 'values = ["fav"]', 'values = ["cart"]', r"behaviours\.favourite\.values: 'cart' already means 'cart'"),
        (
            TAOBAO,
            'behaviours = ["buy"]',
            'behaviours = ["bought"]',
            r"tasks\.buy\.behaviours: \['bought'\] not among behaviours \['view'",
        ),
        (
            TAOBAO,
            "window_days = 7",
            "window_days = 7\njudged_days = 6",
            r"training\.judged_days: 6 came, and the calendar has 9 days; at most half of them, 4, so that there is",
        ),
        (
            TAOBAO.replace("first_day = 2017-11-25", "first_day = 2017-12-03"),
            "window_days = 7",
            "window_days = 7\njudged_days = 2",
            r"training\.judged_days: 2 came, and the calendar has 1 days; at most half of them, 1, so that",
        ),
        (TAOBAO, "window_days = 7", 'window_days = "week"', r"training\.window_days: .*integer.*'week'"),
        (
            TAOBAO,
            'kind = "epoch_s"',
            'kind = "epoch"',
            r"time\.kind: .*'epoch_s', 'epoch_ms', 'epoch_us', 'timestamp' or 'date'.*'epoch'",
        ),
        (TAOBAO, 'kind = "epoch_s"', 'kind = "date"', r"context\.derived: 'hour' needs a time within the day"),
        (TAOBAO, "header = false", "header = flase", r"not valid TOML: .*line 8"),
        (TAOBAO, 'item = "item_id"', "", r"columns\.item: is missing"),
        (TAOBAO, 'item = "item_id"', 'item = "item"', r"source\.columns: \['item'\] are used but not among"),
        (TAOBAO, 'behaviour = "behavior_type"', "", r"columns\.behaviour: needs the column"),
        (TAOBAO, 'shape = "events"', 'shape = "exposures"', r"columns\.behaviour: shape 'exposures' has no behaviour column"),
        (
            TAOBAO,
            "last_day = 2017-12-03",
            "last_day = 2017-11-03",
            r"calendar\.last_day: 2017-11-03 is before first_day 2017-11-25",
        ),
        (TAOBAO, "click = 0.2", "clicks = 0.2", r"serving\.weights: \['clicks'\] not among tasks \['click', 'cart', 'buy'\]"),
        (TAOBAO, "[tasks.cart]", '[tasks.cart]\ngiven = "cart"', r"tasks\.cart\.given: 'cart' is not another task"),
        (TAOBAO, "[tasks.cart]", '[tasks.cart]\nlabel = "cart"', r"tasks\.cart: an event log needs 'behaviours'"),
        (TAOBAO, "[tasks.cart]", "[tasks.mean]", r"tasks\.mean: 'mean' stands for the mean over tasks"),
        (TAOBAO, 'format = "csv"', 'format = "csv"\ndelimiter = "\\n"', r"source\.delimiter: '\\n' is not a delimiter"),
        (TAOBAO, 'format = "csv"', 'format = "csv"\ndelimiter = "\\""', r"source\.delimiter: '\"' is not a delimiter"),
        (TAOBAO, '["user_id", ', '["item_id", "user_id", ', r"source\.columns: \['item_id'\] stand there more than once"),
        (TAOBAO, "last_day = 2017-12-03", "last_day = 9999-12-31", r"calendar\.last_day: .*less than or equal to 2200-12-31"),
        (TAOBAO, "accept_from = 2017-09-01", "accept_from = 0001-01-01", r"calendar\.accept_from: .*equal to 1970-01-01"),
        (TAOBAO, "horizon_hours = 24", "horizon_hours = inf", r"tasks\.click\.horizon_hours: .*(finite|8784)"),
        (TAOBAO, "days = 9", "days = 999999999", r"histories\.days: .*less than or equal to 3660"),
        (TAOBAO, "click = 0.2", "click = nan", r"serving\.weights\.click: .*finite number"),
        (TAOBAO, "[validation]", "[checks.volume]\nlargest = inf\n[validation]", r"checks\.volume\.largest: .*finite number"),
        (TAOBAO, "[context]", "[kontext]", r"kontext: no such key; known here: name, description, shape"),
        (TAOBAO, "window_days", "windows_days", r"training\.windows_days: no such key; known here: window_days"),
        (SIMULATED, 'label = "is_cart"', 'label = "is cart?"', r"tasks\.cart\.label: 'is cart\?' is not a condition"),
        (
            SIMULATED,
            'label = "is_cart"',
            'label = "position > 2"',
            r"label columns \['position'\] are names the lake uses itself",
        ),
        (SIMULATED, 'when = "is_buy"', 'values = ["buy"]', r"behaviours\.buy: an exposure log needs 'when'"),
        (SIMULATED, 'segment = "segment"', 'category = "segment"', r"\['category'\] used twice or reserved"),
    ],
)
def test_a_mistake_names_file_key_and_remedy(text: str, old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ContractError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_conditions_that_go_round_in_a_circle_are_refused() -> None:
    tasks: dict[str, Any] = {n: {"label": "x", "given": g} for n, g in (("a", "b"), ("b", "a"))}
    with pytest.raises(ValueError, match=r"tasks\.a\.given: a -> b -> a does not end in a task of its own"):
        logs.contract(logs.EXPOSURES, tasks=tasks)


def test_on_a_log_of_days_an_action_is_known_after_whole_days() -> None:
    behaviours: dict[str, Any] = {"view": {"when": "clicked", "horizon_hours": 12}}
    by_date = {**logs.EXPOSURES, "time": logs.DATES["time"], "context": {}}
    with pytest.raises(ValueError, match=r"behaviours\.view\.horizon_hours: 12 came, and a log whose times are days"):
        logs.contract(by_date, behaviours=behaviours)
    behaviours["view"]["horizon_hours"] = 24
    assert logs.contract(by_date, behaviours=behaviours).behaviours["view"].horizon_hours == 24


def test_an_unknown_data_set_names_those_that_there_are() -> None:
    with pytest.raises(ContractError, match=r"nowhere\.toml: no such contract.*simulated.*taobao"):
        load("nowhere")


def test_days_are_local_and_as_long_as_the_clock_makes_them() -> None:
    terms = logs.contract(logs.EVENTS)  # Europe/Paris; clocks go forward on 2026-03-29
    assert terms.day_end("2026-03-29") - terms.day_start("2026-03-29") == 23 * 3_600_000
    assert terms.day_end("2026-03-28") - terms.day_start("2026-03-28") == 24 * 3_600_000
    noon = datetime(2026, 3, 29, 12, tzinfo=terms.zone).timestamp() * 1000
    assert terms.day_of(round(noon)) == date(2026, 3, 29)


def test_no_training_label_looks_into_the_judged_day() -> None:
    taobao = load("taobao")
    assert taobao.training_days("2017-12-02") == [f"2017-11-{d}" for d in range(25, 31)]
    for day in taobao.training_days("2017-12-02"):
        assert taobao.day_end(day) + 24 * 3_600_000 <= taobao.day_start("2017-12-02")
    assert taobao.mature("2017-12-02", "2017-12-03")
    assert not taobao.mature("2017-12-03", "2017-12-03")
    assert taobao.training_days("2017-11-25") == []
    at_once = load("simulated")
    assert at_once.training_days("2026-03-12")[-1] == "2026-03-11"
    assert at_once.mature("2026-03-13", "2026-03-13")


def test_days_that_are_judged_together_are_not_trained_on() -> None:
    taobao = load("taobao")
    three = taobao.model_copy(update={"training": taobao.training.model_copy(update={"judged_days": 3})})
    assert taobao.verdict_days("2017-12-02") == ["2017-12-02"]
    assert three.verdict_days("2017-12-02") == ["2017-11-30", "2017-12-01", "2017-12-02"]
    assert three.training_days("2017-12-02") == [f"2017-11-{d}" for d in range(25, 29)], "the 29th's labels end on the 30th"
    assert three.training_days("2017-11-28") == []


def test_a_digest_follows_the_named_sections_only() -> None:
    one, two = logs.contract(logs.EVENTS), logs.contract(logs.EVENTS, training={"epochs": 3})
    assert one.digest("time", "tasks") == two.digest("time", "tasks")
    assert one.digest("training") != two.digest("training")
    assert one.digest() != two.digest()
