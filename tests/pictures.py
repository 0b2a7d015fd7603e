"""The three pictures of `docs/`, taken in a headless Chromium. Those committed are of the Taobao demo; to take them again:

python -m tests.pictures .dtrn taobao        # after: make demo DATASET=taobao LOG=…
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from PIL import Image, ImageChops

from assets import lake
from models.home import Home
from orchestration.build import STAGES
from tests import browser

DOCS = Path(__file__).resolve().parent.parent / "docs"
NARROW = "[...document.querySelectorAll('button')].find(b => b.innerText.includes('Hide navigation'))?.click()"
JUMP = "document.querySelector(\"input[placeholder='Jump to…']\")"
BARE = "(() => { let n = document.querySelector('[role=slider]'); while (n.getBoundingClientRect().height < 250) \
n = n.parentElement; n.style.visibility = 'hidden' })()"
LEFT = f"(() => {{ let n = {JUMP}; while (n.getBoundingClientRect().height < 600) n = n.parentElement; \
return n.getBoundingClientRect().right }})()"


def lineage(page: browser.Page, ui: str) -> Image.Image:
    """Every asset in its group, as Dagster's UI at this address draws them, without what stands around."""
    page.size(2300, 1500)
    address = f"{ui}/asset-groups?expanded={quote(','.join(f'global@global:{group}' for group in STAGES))}"
    page.open(address)
    page.waits_for("packaged_model")
    page.says(NARROW)
    page.open(address)  # fitted to what is left for it
    page.waits_for("packaged_model")
    time.sleep(2)  # the states of the assets come after their names
    page.says(BARE)
    left = int(page.says(LEFT)) + 4
    picture = page.picture().convert("RGB")
    return _trimmed(picture.crop((left, 170, *picture.size)))


def verdict(page: browser.Page, home: Home, day: str) -> Image.Image:
    """The page of a verdict down to its differences."""
    page.size(1400, 1340)
    page.open(home.verdict_page(day).as_uri())
    page.waits_for("How much better, how sure")
    return page.picture().convert("RGB")


def drift(page: browser.Page, home: Home, day: str) -> Image.Image:
    """The drift report of a day from its top."""
    page.size(1300, 1180)
    page.open(home.drift_report(day).as_uri())
    page.waits_for("Field by field", "Drift in column")
    return page.picture().convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    picture.save(path, optimize=True)


def _trimmed(picture: Image.Image) -> Image.Image:
    """Cut to what differs from the ground, with a margin. The ground's dots are fainter than all that counts."""
    ground = Image.new("RGB", picture.size, "white")
    seen = ImageChops.difference(picture, ground).convert("L").point(lambda tone: 255 if tone > 40 else 0)
    left, top, right, bottom = seen.getbbox() or (0, 0, *picture.size)
    return picture.crop((max(0, left - 30), max(0, top - 30), min(picture.width, right + 30), min(picture.height, bottom + 30)))


def main(root: str, dataset: str) -> None:
    """Write the pictures of a data set whose demo ran in this home."""
    home = Home(Path(root).absolute(), dataset)
    day = lake.partitions(home, "drift")[-1]
    with tempfile.TemporaryDirectory() as folder, browser.page(Path(folder)) as page:
        save(verdict(page, home, day), DOCS / "verdict.png")
        save(drift(page, home, day), DOCS / "drift.png")
        with browser.dagster(Path(folder), dataset, home.root) as ui:
            save(lineage(page, ui), DOCS / "lineage.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
