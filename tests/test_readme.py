"""README is true of the tree: what it names is there, and what is there is named."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def tracked() -> list[str]:
    out = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return out.stdout.splitlines()


def test_the_tree_names_every_folder_and_no_other() -> None:
    tree = README.split("<!-- tree -->")[1]
    named = set(re.findall(r"^    (\w+)/ ", tree, re.MULTILINE))
    there = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")}
    assert named == there


def test_every_link_and_picture_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert "docs/lineage.png" in links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_every_make_command_named_is_one_and_every_one_is_named() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) == targets - {"help"}


def test_every_contract_named_is_one() -> None:
    named = set(re.findall(r"datasets/(\w+)\.toml", README))
    assert named == {Path(path).stem for path in tracked() if path.startswith("datasets/")}
