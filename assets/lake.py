"""Partitions and their manifests: what is there, what it was made from, and whether it may be read.

A partition is one file. It is written beside its place and renamed, then its manifest is; so a kill at any moment leaves
either the old partition, or a new one whose manifest does not match and which is therefore made again. A block is a
line in the manifest, because a failed check in the orchestrator stops only its own run: every reader asks `require`.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from models.home import Home

SOURCE = Path(__file__).resolve().parent.parent


class Blocked(Exception):
    """A partition that may not be read; the message says why and what to do."""


class Missing(Exception):
    """A partition that is needed and not there; the message says which and what to do."""


class Transient(Exception):
    """What may go well when it is tried again, such as a service that did not start; the message is for people."""


@dataclass(frozen=True)
class Manifest:
    """What one partition of one stage is.

    inputs: content hash of every input by name · code, contract: hashes of the code and of the contract's sections that
    the stage reads · content: hash of the partition's own bytes · counts: rows by kind · blocked: why it may not be read ·
    run: the Dagster run that made it, where that was said.
    """

    stage: str
    partition: str
    inputs: dict[str, str]
    code: str
    contract: str
    content: str
    counts: dict[str, int] = field(default_factory=dict)
    detail: dict[str, Any] = field(default_factory=dict)
    blocked: str | None = None
    run: str = ""


def read(home: Home, stage: str, partition: str) -> Manifest | None:
    """The manifest of a partition, None when there is none."""
    path = home.manifest(stage, partition)
    return Manifest(**json.loads(path.read_text())) if path.is_file() else None


def remedy(stage: str, partition: str) -> str:
    """How a partition is made, or made again: on the command line where there is a command for its stage, and in the UI."""
    ui = f"materialise {stage} of {partition}"
    if not partition[:1].isdigit() or stage in ("predictions", "outcomes", "drift", "replay"):
        return ui
    if stage in ("log_files", "events", "histories", "samples"):
        command = "ingest"
    else:
        command = "evaluate" if stage in ("verdict", "packaged_model", "bento", "parity", "champion") else "train"
    return f"run ./dtrn {command} --day {partition} (in the UI: {ui})"


def require(home: Home, stage: str, partition: str) -> Manifest:
    """The manifest of a partition that a reader depends on. Raises Missing or Blocked."""
    manifest = read(home, stage, partition)
    if manifest is None:
        raise Missing(f"{stage} of {partition} is needed and not there; {remedy(stage, partition)} first")
    if manifest.blocked:
        raise Blocked(f"{stage} of {partition} is blocked: {manifest.blocked}")
    return manifest


def outdated(home: Home, manifest: Manifest) -> list[str]:
    """The inputs named `stage/partition` of a manifest that are other ones, or blocked, by now."""
    found = []
    for name, content in manifest.inputs.items():
        stage, _, partition = name.partition("/")
        now = read(home, stage, partition)
        if now is None or now.content != content or now.blocked:
            found.append(name)
    return found


def require_current(home: Home, stage: str, partition: str) -> Manifest:
    """As `require`, for what was made of other partitions: those must still be the ones it was made from."""
    manifest = require(home, stage, partition)
    if changed := outdated(home, manifest):
        raise Missing(
            f"{stage} of {partition} was made from {', '.join(changed)}, changed or blocked since; "
            f"{remedy(stage, partition)} again"
        )
    return manifest


def to_renew(home: Home, stage: str) -> list[str]:
    """Partitions of `stage` that are there, are outdated, and whose inputs may all be read."""
    found = []
    for partition in partitions(home, stage):
        manifest = read(home, stage, partition)
        changed = outdated(home, manifest) if manifest else []
        inputs = [read(home, *name.split("/")) for name in changed]
        if changed and all(i is not None and not i.blocked for i in inputs):
            found.append(partition)
    return found


def partitions(home: Home, stage: str) -> list[str]:
    """Every partition of a stage that has a manifest, in order."""
    return sorted(p.stem for p in home.manifest(stage, "x").parent.glob("*.json"))


def build(
    home: Home,
    stage: str,
    partition: str,
    target: Path,
    make: Callable[[Path], dict[str, Any]],
    *,
    inputs: dict[str, str],
    code: str,
    contract: str,
    run: str = "",
) -> tuple[Manifest, bool]:
    """Bring one partition up to date; (its manifest, whether work was done).

    `make(path)` writes the file (or folder) `path` and returns {"counts": {…}, "detail": {…}, "blocked": str | None},
    each optional. Nothing is made when inputs, code, contract and the bytes on disk are what the manifest says. `run` is
    noted and is no reason to make anything.
    """
    before = read(home, stage, partition)
    if (
        before
        and (before.inputs, before.code, before.contract) == (inputs, code, contract)
        and content_hash(target) == before.content
    ):
        return before, False
    with replacing(target) as path:
        made = make(path)
    manifest = Manifest(stage, partition, inputs, code, contract, content_hash(target), run=run, **made)
    write_json(home.manifest(stage, partition), asdict(manifest))
    return manifest, True


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside `target`; what is written there takes `target`'s place when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.parent / f".{target.name}.{os.getpid()}"
    for left in _left(target):
        _remove(left)
    _remove(path)
    try:
        yield path
        with path.open("rb") if path.is_file() else _nothing() as file:
            if file is not None:
                os.fsync(file.fileno())
        if target.is_dir():  # a folder cannot be renamed over another; its manifest no longer matches in between
            shutil.rmtree(target)
        path.replace(target)
    finally:
        _remove(path)


def _left(target: Path) -> list[Path]:
    """What killed processes left beside `target` while they wrote it, or wrote a part of it in the same way."""
    ours = re.compile(rf"\.+{re.escape(target.name)}\.(\d+)(\..*)?")
    found = [(path, ours.fullmatch(path.name)) for path in target.parent.iterdir()]
    return [path for path, match in found if match and not _runs(int(match[1]))]


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def scratch(home: Home, kind: str) -> Iterator[Path]:
    """A new folder below `staging`, gone when the block ends; what a killed process left there goes when one is made.

    Its owner holds a lock on it (`keeping`), which the kernel lets go however the owner ends.
    """
    home.staging.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        with _locked(home.staging, fcntl.LOCK_EX):
            for left in home.staging.glob("*.scratch"):
                # Gone meanwhile, or at work.
                with suppress(FileNotFoundError, BlockingIOError), _locked(left, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(left, ignore_errors=True)
            path = Path(tempfile.mkdtemp(dir=home.staging, prefix=f"{kind}-", suffix=".scratch"))
            held.enter_context(keeping(path))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def keeping(folder: Path) -> Iterator[int]:
    """Keep a scratch folder while the block runs, and as long as a process lives that was passed the descriptor."""
    with _locked(folder, fcntl.LOCK_SH) as descriptor:
        yield descriptor


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[int]:
    """Hold a lock on a folder while the block runs. Raises BlockingIOError when another holds it and `how` will not wait."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield descriptor
    finally:
        os.close(descriptor)


def put(folder: Path, place: Path, former: Path) -> None:
    """Move `folder` to `place`; what was there goes to `former`, and comes back when the move fails."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.replace(former)  # a folder cannot be renamed over another
    try:
        folder.replace(place)
    except OSError:
        if former.is_dir():
            former.replace(place)
        raise


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=1, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text atomically."""
    with replacing(path) as part:
        part.write_text(text)


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of a folder's relative names and bytes; 'absent' when there is nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return "absent"
    digest = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{content_hash(part)}\n".encode())
    return digest.hexdigest()


@cache
def code_hash(*modules: str) -> str:
    """Hash of the named source files (`assets/samples.py`) and of every file of `models` that they import, however far.

    Of what is imported `home.py` does not count, which only says where things lie. A package counts with all its files:
    `models.bottoms` and `models.heads` find theirs by name while they run.
    """
    digest = hashlib.sha256()
    for path in sorted(_closure({SOURCE / module for module in modules})):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _closure(paths: set[Path]) -> set[Path]:
    found, waiting = set[Path](), set(paths)
    while waiting:
        path = waiting.pop()
        found.add(path)
        nodes = ast.walk(ast.parse(path.read_bytes())) if path.suffix == ".py" else []
        for node in nodes:
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                if name.startswith("models."):
                    place = SOURCE / name.replace(".", "/")
                    imported = {place.with_suffix(".py"), *place.glob("*.py")} - found
                    waiting |= {p for p in imported if p.is_file() and p.name != "home.py"}
    return found


class Engine(Backend):  # type: ignore[misc]  # Ibis has no types
    """DuckDB behind Ibis, for which a path is a path: DuckDB alone reads one with `[`, `*` or `?` as a glob."""

    def read_parquet(self, paths: Path | str | Sequence[Path | str], /, **options: Any) -> ir.Table:
        found = [paths] if isinstance(paths, str | Path) else paths
        return super().read_parquet([literal(path) for path in found], **options)


def literal(path: Path | str) -> str:
    """The glob that matches just this path.

    >>> literal("/a[b]/c*")
    '/a[[]b]/c[*]'
    """
    return re.sub(r"[\[*?]", r"[\g<0>]", str(path))


def engine() -> Engine:
    """A fresh in-memory DuckDB behind Ibis: no network, no extension, UTC, deterministic order where asked."""
    backend: Engine = Engine().connect(":memory:", threads=os.cpu_count() or 1)
    backend.raw_sql("SET TimeZone='UTC'")
    backend.raw_sql("SET enable_progress_bar=false")
    return backend


def refresh_catalogue(home: Home) -> None:
    """(Re)build `lake.duckdb`: one view per stage over its Parquet, for people and notebooks."""
    home.lake.mkdir(parents=True, exist_ok=True)
    with replacing(home.catalogue) as path, duckdb.connect(str(path)) as connection:
        for stage in ("events", "quarantine", "histories", "samples", "predictions", "outcomes"):
            files = (literal(home.lake / stage) + "/*/part.parquet").replace("'", "''")
            if list((home.lake / stage).glob("*/part.parquet")):
                connection.execute(
                    f"CREATE VIEW {stage} AS SELECT * FROM read_parquet('{files}', hive_partitioning=true, union_by_name=true)"
                )
