"""The registry: BentoML's model store for the artifacts, and one file of appended lines for who reigns.

A stored model's version names its judged day, its recipe and its bytes, so storing twice stores once, and no two models
share a tag. A change of champion is one line, flushed to the disk; the pointer is the last complete line, so a kill in
the middle of an append leaves the champion before it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assets import lake
from models import names
from models.contract import Contract
from models.home import Home

CONTENT = "artifact"
"""The folder of a stored model that holds the artifact; beside it lies BentoML's own `model.yaml`."""


@dataclass(frozen=True)
class Champion:
    """One change of champion. `tag` names the model, `bento` what serves it, `replaced` the model before it."""

    tag: str
    bento: str
    name: str
    judged_day: str
    when: str
    who: str
    why: str
    replaced: str | None


def champions(home: Home) -> list[Champion]:
    """Every change of champion, oldest first; an incomplete last line (a kill while it was written) is none.

    Raises ValueError, naming file and line, for a line that was damaged by hand.
    """
    if not home.champions.is_file():
        return []
    whole, _, _ = home.champions.read_bytes().rpartition(b"\n")
    return [_parse(home.champions, number, line) for number, line in enumerate(whole.splitlines(), 1)]


def _parse(path: Path, number: int, line: bytes) -> Champion:
    names = ("bento", "name", "judged_day", "when", "who", "why")
    try:
        told = json.loads(line)
        return Champion(tag=told["to"], replaced=told["from"], **{name: told[name] for name in names})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: is not a change of champion ({error!r}); mend or remove the line") from None


def champion(home: Home, before: str | None = None) -> Champion | None:
    """The reigning champion; with `before`, the last one that was judged on an earlier day than that."""
    reigning = [c for c in champions(home) if before is None or c.judged_day < before]
    return reigning[-1] if reigning else None


def promote(
    home: Home, *, judged_day: str, name: str, tag: str, bento: str, against: str | None, who: str, why: str, when: datetime
) -> Champion | None:
    """Append one change of champion and flush it to the disk. `against`: the tag of the champion it was judged better than.

    None, and nothing moves, when a champion was judged on this day or on a later one: judging an old day again is history.
    Raises lake.Missing when another one than `against` reigns by now: to be better than its predecessor says nothing.
    """
    home.champions.parent.mkdir(parents=True, exist_ok=True)
    with home.champions.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        reigning = champions(home)
        if any(c.judged_day >= judged_day for c in reigning):
            return None
        former = reigning[-1].tag if reigning else None
        if former != against:
            raise lake.Missing(
                f"{tag} was judged against {against or 'no champion'} on {judged_day}, and {former or 'none'} reigns by now; "
                f"judge {judged_day} again: materialise verdict and what follows it for {judged_day}"
            )
        line: dict[str, str | None] = {"when": when.astimezone(UTC).isoformat(timespec="seconds"), "who": who, "why": why}
        line |= {
            "judged_day": judged_day,
            "from": former,
            "to": tag,
            "bento": bento,
            "name": name,
        }
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)  # what a kill left of a line would make this one unreadable
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return champion(home)


def model_tag(home: Home, contract: Contract, name: str, judged_day: str) -> str:
    """The tag that the artifact of `name` for `judged_day` has in the registry, stored or not."""
    return f"dtrn-{contract.name}:{judged_day}-{names.identifier(name)}-{lake.content_hash(home.model(name, judged_day))[:10]}"


def store(home: Home, contract: Contract, name: str, judged_day: str, labels: dict[str, str]) -> str:
    """Put the artifact of `name` for `judged_day` into the model store with its lineage; its tag.

    What is there already under this tag is kept, unless its bytes are no longer those that the tag names. Raises
    ValueError when there is no artifact.
    """
    # Imported here: bentoml takes most of a second, and most who ask for the champion never touch the store.
    import bentoml

    source = home.model(name, judged_day)
    if not source.is_dir():
        raise ValueError(f"{source}: no such artifact; train {name} for {judged_day} first")
    tag = model_tag(home, contract, name, judged_day)
    folder = _folder(home, tag)
    # BentoML saves file by file, and a kill would leave half a model in the store under its full name.
    with lake.scratch(home, "model") as scratch:
        if _sound(folder, tag):
            return tag
        # Not `bentoml.models.create`, which reports what it stores to its makers over the network.
        model = bentoml.Model.create(
            bentoml.Tag.from_str(tag), module="", api_version="v1", signatures={}, labels=labels, context=_context()
        )
        model.flush()
        saved = Path(model.save(_models(scratch)).path)
        shutil.copytree(source, saved / CONTENT)
        lake.write_text(folder.parent / "latest", folder.name)
        lake.put(saved, folder, scratch / "former")
    return tag


def artifact(home: Home, tag: str) -> Path:
    """The folder of a stored model, an artifact as `models.artifact` reads it.

    Raises lake.Missing, saying what to do, when it is not in the store.
    """
    folder = _folder(home, tag) / CONTENT
    if not folder.is_dir():
        raise lake.Missing(
            f"model {tag} is not in the store {home.bentoml}; materialise packaged_model of its judged day again"
        )
    return folder


def stored(home: Home, tag: str) -> bool:
    """Whether a model is in the store with the very bytes that its tag names."""
    return _sound(_folder(home, tag), tag)


def lineage(home: Home, tag: str) -> dict[str, str]:
    """The labels that a model was stored with."""
    artifact(home, tag)
    labels: dict[str, str] = _models(home.bentoml / "models").get(tag).info.labels
    return labels


def _sound(folder: Path, tag: str) -> bool:
    whole = (folder / "model.yaml").is_file()
    return whole and lake.content_hash(folder / CONTENT)[:10] == tag.rsplit("-", 1)[1]


def _folder(home: Home, tag: str) -> Path:
    name, version = tag.split(":")
    return home.bentoml / "models" / name / version


def _models(folder: Path) -> Any:
    from bentoml._internal.models import ModelStore

    return ModelStore(folder)


def _context() -> Any:
    from bentoml._internal.models import ModelContext

    return ModelContext(framework_name="torch", framework_versions={})
