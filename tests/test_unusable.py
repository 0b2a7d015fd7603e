"""A disk that is full or may not be written is told in words, on the command line and in the UI; a fault keeps its trace."""

from __future__ import annotations

import errno
from pathlib import Path

import dagster as dg
import pytest

from assets.project import explained
from models.home import Home, unusable
from orchestration.command_line import main


def test_a_home_below_a_file_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["dtrn", "simulate", "--home", str(file / "home"), "--users", "20"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"dtrn: {file / 'home'}")
    assert said[0].endswith("is a file where a folder is needed")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.ENOTDIR])
def test_an_asset_says_it_without_a_trace_and_is_not_tried_again(code: int) -> None:
    with pytest.raises(dg.Failure, match=r"^/lake/part.parquet: ") as failed, explained():
        raise OSError(code, "words of the system", "/lake/part.parquet")
    assert failed.value.allow_retries is False


def test_a_fault_stays_one() -> None:
    assert unusable(FileNotFoundError(errno.ENOENT, "No such file", str(Home(Path("/h"), "x").base))) is None
    assert unusable(OSError("no number")) is None
    with pytest.raises(FileNotFoundError), explained():
        raise FileNotFoundError(errno.ENOENT, "No such file", "/lake/part.parquet")
