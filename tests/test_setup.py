"""The set-up takes a Python that the pinned packages are for, and says plainly when there is none."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.pages import ROOT

REQUIRED = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
OLDEST, BEYOND = (int(part.split(".")[1]) for part in REQUIRED.split(","))
NEEDED = ("bash", "awk", "cat", "cksum", "dirname", "env", "flock", "grep", "mkdir", "rm", "sed", "seq", "tail", "tee")
NO_VENV = "cannot make a virtual environment"
"""What follows once a Python was taken: those of this test cannot make one."""


def set_up(folder: Path, pythons: dict[str, str], **environment: str) -> tuple[int, str]:
    """(status, what was said) of the set-up in a fresh checkout, on a machine that has `pythons`: name → version."""
    for name in ("pyproject.toml", "requirements.txt", "constraints.txt", "orchestration/setup.sh"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "bin").mkdir()
    for tool in NEEDED:
        if found := shutil.which(tool):
            (folder / "bin" / tool).symlink_to(found)
    for name, version in pythons.items():
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n[[ $1 == -c ]] && echo {version} || exit 1\n")
        (folder / "bin" / name).chmod(0o755)
    done = subprocess.run(
        [folder / "orchestration" / "setup.sh"], env={"PATH": str(folder / "bin"), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    assert not (folder / ".venv").exists()
    return done.returncode, done.stdout


@pytest.mark.parametrize("version", [f"3.{OLDEST - 1}", f"3.{BEYOND}", "2.7", f"4.{OLDEST}"])
def test_a_python_that_is_too_old_or_too_new_is_refused_in_words(tmp_path: Path, version: str) -> None:
    status, said = set_up(tmp_path, {"python3": version})
    names = ", ".join(f"python3.{minor}: not there" for minor in range(OLDEST, BEYOND))
    assert (status, said) == (
        1,
        f"set-up: the pinned packages are for Python 3.{OLDEST} to 3.{BEYOND - 1}, and none was found ({names}, "
        f"python3: {version}). Install one, or name it: make setup PYTHON=/path/to/python3.{OLDEST}\n",
    )


@pytest.mark.parametrize("minor", range(OLDEST, BEYOND))
@pytest.mark.parametrize("named", [True, False])
def test_every_python_that_is_required_is_taken(tmp_path: Path, minor: int, named: bool) -> None:
    name = f"python3.{minor}" if named else "python3"
    status, said = set_up(tmp_path, {name: f"3.{minor}"})
    assert status == 1
    assert f"set-up: {name} {NO_VENV}" in said


def test_a_python_that_is_named_is_the_only_one_looked_at(tmp_path: Path) -> None:
    status, said = set_up(tmp_path, {"mine": f"3.{BEYOND}", f"python3.{OLDEST}": f"3.{OLDEST}"}, PYTHON="mine")
    assert status == 1
    assert f"none was found (mine: 3.{BEYOND}). Install one" in said


def test_what_a_link_leads_to_is_left_alone(tmp_path: Path) -> None:
    """Another checkout's environment, of other pins."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "pins").write_text("of the other\n")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / ".venv").symlink_to(other)
    status, said = set_up(checkout, {"python3": f"3.{OLDEST}"})
    assert status == 1
    assert "the pins changed" in said
    assert (other / "pins").read_text() == "of the other\n"
    assert not (checkout / ".venv").is_symlink()


def test_the_readme_says_which() -> None:
    assert f"(Python 3.{OLDEST} to 3.{BEYOND - 1}, `make`" in (ROOT / "README.md").read_text()
