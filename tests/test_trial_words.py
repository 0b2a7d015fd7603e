"""What `./dtrn check` says where there is little to say it of: a file of no use, a calendar that is longer than its log."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from models.contract import Contract
from orchestration import newcomer
from tests.damaged_log import START, contract


def told(folder: Path, terms: Contract, text: str) -> str:
    log, out = folder / "log.csv", io.StringIO()
    log.write_text(text)
    newcomer.tell_trial(terms, "mine.toml", str(log), Console(file=out, width=200, soft_wrap=True))
    return out.getvalue()


def test_a_file_of_which_no_row_can_be_used_has_no_line(tmp_path: Path) -> None:
    said = told(tmp_path, contract(source={"header": True}), "a,b\n1,2\n")
    assert "1 × missing_columns, first in log.csv: no column 'u'" in said
    assert "line 0" not in said


def test_the_cost_is_of_the_days_that_the_log_has(tmp_path: Path) -> None:
    rows = [
        f"{user},{(user * 7 + n) % 50},{n % 5},{'buy' if n % 9 == 0 else 'pv'},{START + day * 86_400 + user * 40 + n}"
        for day in range(3) for user in range(40) for n in range(12)
    ]  # fmt: skip
    calendar = {"first_day": "2024-01-01", "last_day": "2024-04-30"}
    terms = contract(calendar=calendar, tasks={"buy": {"behaviours": ["buy"], "horizon_hours": 12}})
    said = told(tmp_path, terms, "\n".join(rows) + "\n")
    samples = next(int(line.split()[0].replace(",", "")) for line in said.splitlines() if line.endswith(" samples"))
    assert samples > 900
    assert f"3 days of about {samples / 3:,.0f}, " in said
