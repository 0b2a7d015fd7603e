"""Nothing at or after a sample's time reaches its encoded input: not by one bit, whatever happens later."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets import histories, samples
from models.contract import Contract
from models.home import Home
from models.vocabulary import Vocabulary
from models.window import read_requests
from tests import logs

HOUR = 3_600_000
JUDGED = "2026-03-31"
Row = dict[str, Any]


def random_rows(terms: Contract, random: np.random.Generator, count: int, since: int, until: int) -> list[Row]:
    rows = []
    for _ in range(count):
        time = int(random.integers(since, until)) // HOUR * HOUR
        time = max(time, since)
        if terms.time.resolution == "day":
            time = terms.day_start(terms.day_of(time))
        row: Row = {"user": int(random.integers(1, 5)), "item": int(random.integers(1, 12)), "time": time}
        row["category"] = row["item"] % 3
        if terms.shape == "events":
            row["behaviour"] = str(random.choice(["view", "buy"]))
        else:
            row |= {
                "position": int(random.integers(0, 5)),
                "clicked": float(random.integers(2)),
                "stars": float(random.integers(1, 6)),
            }
        rows.append(row)
    return rows


def encoded_inputs(
    root: Path, terms: Contract, rows: list[Row], vocabulary: Vocabulary | None
) -> tuple[Vocabulary, dict[Any, bytes]]:
    """Every input of each sample of the judged day as bytes, by (user, time, item, category, context)."""
    home = Home(root, terms.name)
    by_day = defaultdict(list)
    for row in rows:
        by_day[str(terms.day_of(row["time"]))].append(row)
    for day in terms.days():
        logs.write_events(home, terms, day, by_day[day])
    for day in terms.days():
        histories.build(home, terms, day)
        samples.build(home, terms, day)
    if vocabulary is None:
        training = read_requests(home, terms, terms.training_days(JUDGED))
        vocabulary = Vocabulary.fit(training, terms, [training])
    raw = read_requests(home, terms, [JUDGED])
    coded = vocabulary.encode(raw)
    out = {}
    for row, request in enumerate(raw.request):
        assert coded.told is not None
        parts = [coded.user[request], coded.item[row], coded.context[row], coded.told[0][request], coded.told[1][row]]
        for a in range(len(terms.actions)):
            span = slice(coded.start[request, a], coded.end[request, a])
            parts += [coded.sequences.tokens[a][span], coded.sequences.times[a][span]]
        key = (int(raw.user[request, 0]), int(raw.time[request]), *map(int, raw.item[row]), *map(int, raw.context[row]))
        out[key] = b"|".join(np.ascontiguousarray(p).tobytes() for p in parts)
    return vocabulary, out


@pytest.mark.parametrize("base", [logs.EVENTS, logs.DATES, logs.EXPOSURES], ids=["events", "dates", "exposures"])
@pytest.mark.parametrize("seed", range(3))
def test_rewriting_everything_at_or_after_a_sample_leaves_its_input_as_it_was(
    base: dict[str, Any], seed: int, tmp_path: Path
) -> None:
    # A horizon of no more than a day, so that the calendar below leaves days to train on.
    terms = logs.contract(base, calendar={"first_day": "2026-03-28", "last_day": "2026-04-01"})
    random = np.random.default_rng(seed)
    start, end = terms.day_start("2026-03-28"), terms.day_end("2026-04-01")
    rows = random_rows(terms, random, 150, start, end)
    vocabulary, before = encoded_inputs(tmp_path / "before", terms, rows, None)
    moments = sorted({r["time"] for r in rows if str(terms.day_of(r["time"])) == JUDGED})
    compared = 0
    for number, moment in enumerate(moments[:: max(1, len(moments) // 3)]):
        past = [r for r in rows if r["time"] < moment]
        # The rows of the moment itself stay, since they are the samples; ties among them must not see each other either.
        present = [r for r in rows if r["time"] == moment]
        future = (
            random_rows(terms, random, 60, moment + 1, end)
            if terms.time.resolution != "day"
            else random_rows(terms, random, 60, terms.day_end(JUDGED), end)
        )
        again, after = encoded_inputs(tmp_path / str(number), terms, past + present + future, vocabulary)
        assert again is vocabulary
        for row in present:
            keys = [k for k in before if k[:3] == (row["user"], moment, row["item"])]
            for key in keys:
                if key in after:
                    assert after[key] == before[key]
                    compared += 1
        # What else happened at the very moment is no input either: alone, each row reads the same.
        alone, single = encoded_inputs(tmp_path / f"{number}-alone", terms, [*past, present[0]], vocabulary)
        assert alone is vocabulary
        for key, value in single.items():
            if key[:3] == (present[0]["user"], moment, present[0]["item"]) and key in before:
                assert value == before[key]
    assert compared


@pytest.mark.parametrize("base", [logs.EVENTS, logs.EXPOSURES], ids=["events", "exposures"])
def test_the_vocabulary_of_a_model_holds_nothing_of_the_judged_day(base: dict[str, Any], tmp_path: Path) -> None:
    terms = logs.contract(base, calendar={"first_day": "2026-03-28", "last_day": "2026-04-01"})
    random = np.random.default_rng(5)
    rows = random_rows(terms, random, 80, terms.day_start("2026-03-28"), terms.day_start(JUDGED))
    later = random_rows(terms, random, 80, terms.day_start(JUDGED), terms.day_end("2026-04-01"))
    for row in later:
        row["item"] += 1000
        row["user"] += 1000
        row["category"] += 1000
    vocabulary, _ = encoded_inputs(tmp_path, terms, rows + later, None)
    for field in ("user", "item", "category"):
        assert vocabulary.tables[field].max() < 1000
    assert vocabulary.rows("item", np.array([2000])).tolist() == [0]
