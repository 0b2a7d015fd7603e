"""Logs that nobody has described, small and made up, and what `dtrn init` drafts for one."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from rich.console import Console

from models.contract import Contract, load
from models.sections import Training
from orchestration import newcomer

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def drafted(source: Path, folder: Path, *answers: str) -> tuple[Contract, str]:
    """The contract that init writes for a log, answering no question but those given."""
    out = folder / "drafted.toml"
    out.unlink(missing_ok=True)
    with (folder / "told.txt").open("w") as told:
        newcomer.write_draft(str(source), out, answers, Console(file=told))
    return load(out), out.read_text()


def shop(
    path: Path, *, zone: str = "Asia/Shanghai", header: bool = True, days: int = 6, rows: int = 400, users: int = 40
) -> Path:
    """A CSV shop with a night: user, item, its category, what happened, when; nobody is about from two to five."""
    draws = random.Random(3)
    start = datetime(2025, 3, 3, tzinfo=ZoneInfo(zone))
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        if header:
            out.writerow(["customer_id", "sku", "dept", "action", "ts"])
        for day in range(days):
            for _ in range(rows):
                hour = draws.choice([0, 1, *range(5, 24)])
                at = start + timedelta(days=day, hours=hour, seconds=draws.randrange(3600))
                item = draws.randrange(60)
                what = draws.choices(["view", "addtocart", "purchase"], [16, 3, 1])[0]
                out.writerow([1000 + draws.randrange(users), 5000 + item, 10 + item % 7, what, round(at.timestamp())])
    return path


def rows_of(path: Path, header: str, *cells: str, mark: str = ",", days: int = 12, rows: int = 60) -> Path:
    """A log of these columns: each cell a format of u(ser), i(tem), r(ating), yes and no (whether that is 5), t(ime), day."""
    draws = random.Random(8)
    with path.open("w") as file:
        file.write(header + "\n" if header else "")
        for day in range(days):
            for n in range(rows):
                stars, day_at = draws.randint(1, 5), 1_700_006_400 + day * 86_400
                told = {"r": stars, "yes": int(stars > 4), "no": int(stars <= 4), "day": day_at, "t": day_at + 1200 * n}
                told |= {"u": draws.randrange(40), "i": draws.randrange(60)}
                file.write(mark.join(cell.format(**told) for cell in cells) + "\n")
    return path


def quick(contract: Contract) -> Training:
    """The contract's terms of training, with the candidate alone that is trained fastest."""
    return contract.training.model_copy(update={"candidates": ("mmoe",)})
