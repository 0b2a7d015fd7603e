"""What a person opens after a demo, seen by a real browser: the verdict's page, the drift report, Evidently's UI."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from assets import drift_runs, evaluation
from assets.served import free_port
from tests import browser, pictures
from tests.demonstrated import Ran

CHALLENGER, SERVED = (0x0B, 0x5C, 0xAD), (0x25, 0x63, 0xEB)
OVERFLOWS = "document.documentElement.scrollWidth - window.innerWidth"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.page(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture
def day(ran: Ran) -> str:
    return ran.contract.days()[-1]


def share(picture: Image.Image, colour: tuple[int, int, int]) -> float:
    """Share of the pixels that have about this colour."""
    return float((np.abs(np.asarray(picture, int) - colour).max(axis=2) < 12).mean())


def ink(picture: Image.Image) -> float:
    """Share of the pixels that are not white."""
    return 1 - share(picture, (255, 255, 255))


def test_the_verdicts_page_shows_who_won_and_by_how_much(page: browser.Page, ran: Ran, day: str) -> None:
    picture = pictures.verdict(page, ran.home, day)
    verdict, text = evaluation.read(ran.home, day), " ".join(page.text().split())
    assert verdict["reasons"][0] in text
    for word in ("Challenger", "Champion", "against the champion", "AUC is how often", "is its interval", "is calibrated"):
        assert word in text
    assert page.says("document.title").endswith(f"small · {day}")
    assert ink(picture) > 0.05
    assert share(picture, CHALLENGER) > 0.0005, "the challenger's dot and its differences are drawn"
    drawn = page.says("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().height)")
    comparisons, tasks = len(verdict["comparisons"]), len(ran.contract.tasks)
    assert len(drawn) == comparisons + 2 * tasks
    assert min(drawn) > 80


@pytest.mark.parametrize("width", [1400, 420])
def test_the_verdicts_page_fits_its_window(page: browser.Page, ran: Ran, day: str, width: int) -> None:
    page.size(width, 900)
    page.open(ran.home.verdict_page(day).as_uri())
    page.waits_for("How to read this")
    assert page.says(OVERFLOWS) <= 0


def test_the_links_of_a_verdict_lead_somewhere(page: browser.Page, ran: Ran, day: str) -> None:
    page.open(ran.home.verdict_page(day).as_uri())
    page.waits_for("Where it came from")
    found = page.says("[...document.querySelectorAll('a')].map(a => a.href)")
    files = [Path(link.removeprefix("file://")) for link in found if link.startswith("file://")]
    assert files == [ran.home.verdict_page(ran.contract.days()[-2])]
    assert files[0].is_file()
    known = {
        f"http://127.0.0.1:3000/assets/small/{name}?" for name in ("verdict", "samples", *ran.contract.training.candidates)
    }
    assert all(any(link.startswith(start) for link in found) for start in known)


def test_the_drift_report_shows_every_field(page: browser.Page, ran: Ran, day: str) -> None:
    picture = pictures.drift(page, ran.home, day)
    text = page.text()
    assert f"Drift on {day}" in text
    for task in ran.contract.tasks:
        assert f"p_{task}" in text
    assert page.says("document.title") == f"Drift on {day}"
    assert ink(picture) > 0.05
    assert share(picture, SERVED) > 0.002, "the bars of what was served are drawn"


def test_evidentlys_ui_shows_the_data_set_and_its_days(page: browser.Page, ran: Ran, day: str, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    words = ["reports", "--dataset", ran.source, "--home", str(ran.home.root), "--port", str(port)]
    with browser.command(words, tmp_path, f"{address}/api/version"):
        page.size(1600, 1200)
        page.open(f"{address}/projects/{ran.home.drift_project.name}")
        page.waits_for("Drifted fields", "History lengths", "Probabilities", "beside what its champion was trained on")
        page.waits_for("p_click", day)
        assert ink(page.picture().convert("RGB")) > 0.02
        page.open(f"{address}/projects/{ran.home.drift_project.name}/reports")
        page.waits_for(day, "Download")
        page.open(drift_runs.address(ran.home, day).replace("http://127.0.0.1:8000", address))
        page.waits_for("Drift in column")
    assert sorted(p.name for p in ran.home.evidently.iterdir()) == [ran.home.drift_project.name], "only looked at"
    log = (tmp_path / "log").read_text()
    assert f"/projects/{ran.home.drift_project.name}" in log.splitlines()[0]


@pytest.mark.parametrize("name", ["lineage", "verdict", "drift"])
def test_the_pictures_of_docs_are_small_and_not_blank(name: str) -> None:
    path = pictures.DOCS / f"{name}.png"
    assert path.stat().st_size < 300_000
    picture = Image.open(path).convert("RGB")
    assert picture.width >= 1200
    assert ink(picture) > 0.05
    assert f"docs/{name}.png" in (pictures.DOCS.parent / "README.md").read_text()
