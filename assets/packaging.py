"""Verdict → packaged model → bento → parity → champion, for one judged day. A verdict that keeps the champion moves nothing.

Each step leaves a small record that the next one reads, so nothing that is unchanged is stored, built or measured again,
and what has vanished from the store is made again. Promotion is the last step and trusts only a parity of this very bento.
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from numpy.typing import NDArray

from assets import evaluation, lake, registry, samples, served
from assets.asking import Asking
from assets.project import Project, explained
from models.contract import Contract
from models.home import Home
from models.requests import Requests

ROOT = Path(__file__).resolve().parent.parent
STAGED = ("bentos/*.py", "models/**/*.py")
BENTOFILE = ROOT / "bentos" / "bentofile.yaml"

LARGEST_DIFFERENCE = 1e-5
"""Between a probability served and the same one offline; float32 and other batch shapes leave about 1e-7."""

MOST_REQUESTS = 300
MOST_ITEMS = 1000

Record = dict[str, Any]
Result = tuple[lake.Manifest, bool] | None
"""(manifest, whether work was done), or None: the champion stays."""


class NotTheSame(ValueError):
    """A bento whose probabilities are not those that the model was judged by."""


def package(home: Home, contract: Contract, judged_day: str, run: str) -> Result:
    """The winner of `judged_day` in the model store, with its lineage; None when the champion stays.

    `run` is the id of the run that does it. Raises ValueError when the artifact is not the one that was judged.
    """
    judged = evaluation.read(home, judged_day)
    if not judged["promote"]:
        return None
    name, content = judged["challenger"]["name"], judged["challenger"]["content"]
    trained = lake.require(home, name, judged_day)
    if lake.content_hash(home.model(name, judged_day)) != content:
        raise ValueError(
            f"{home.model(name, judged_day)} is not the artifact that was judged on {judged_day} (content {content[:10]}); "
            f"materialise {name} and verdict of {judged_day} again"
        )
    record = home.promotion("packaged_model", judged_day)
    if record.is_file() and not registry.stored(home, read(record)["tag"]):
        record.unlink()

    def make(path: Path) -> Record:
        labels = lineage(home, judged, trained, run)
        tag = registry.store(home, contract, name, judged_day, labels)
        lake.write_json(path, {"tag": tag, "name": name})
        return {"detail": {"tag": tag, **_weight(registry.artifact(home, tag))}}

    return lake.build(
        home, "packaged_model", judged_day, record, make,
        inputs={"verdict": lake.content_hash(home.verdict(judged_day)), name: content},
        code=lake.code_hash("assets/packaging.py", "assets/registry.py"), contract=contract.digest("name"),
    )  # fmt: skip


def lineage(home: Home, judged: Record, trained: lake.Manifest, run: str) -> dict[str, str]:
    """The labels of a model: what it was made from, by which code and run, how well it did, and whom it succeeds."""
    reigning = registry.champion(home, before=judged["judged_day"])
    return {
        "judged_day": judged["judged_day"],
        "candidate": trained.stage,
        "content": trained.content,
        "data": json.dumps(trained.inputs, sort_keys=True),
        "contract": trained.contract,
        "code": trained.code,
        "run": run,
        "metrics": json.dumps(judged["models"][trained.stage], sort_keys=True),
        "reasons": json.dumps(judged["reasons"]),
        "parent": reigning.tag if reigning else "",
    }


def build_bento(home: Home, contract: Contract, judged_day: str) -> Result:
    """The bento of `judged_day`'s packaged model; None when the champion stays.

    Raises ValueError with BentoML's own words, or lake.Transient when its build was ended by a signal.
    """
    if not evaluation.read(home, judged_day)["promote"]:
        return None
    packaged = lake.require(home, "packaged_model", judged_day)
    model = read(home.promotion("packaged_model", judged_day))["tag"]
    if not registry.stored(home, model):
        raise lake.Missing(f"model {model} is not in the store; materialise packaged_model of {judged_day} again")
    record = home.promotion("bento", judged_day)
    if record.is_file() and not (home.bentoml / "bentos" / read(record)["tag"].replace(":", "/") / "bento.yaml").is_file():
        record.unlink()

    def make(path: Path) -> Record:
        tag = _build(home, model, contract.serving.weights)
        lake.write_json(path, {"tag": tag, "model": model})
        return {"detail": {"tag": tag, **_weight(home.bentoml / "bentos" / tag.replace(":", "/"))}}

    sources = lake.code_hash(*(str(p.relative_to(ROOT)) for pattern in STAGED for p in sorted(ROOT.glob(pattern))))
    return lake.build(
        home, "bento", judged_day, record, make, inputs={"packaged_model": packaged.content, "sources": sources},
        code=lake.code_hash("assets/packaging.py", "bentos/bentofile.yaml"), contract=contract.digest("name", "serving"),
    )  # fmt: skip


def _build(home: Home, model: str, weights: dict[str, float]) -> str:
    """Build in a folder that holds only what goes in: BentoML walks all of its context. The bento's tag.

    The build writes to a store of its own beside that folder, and the finished bento is moved to the real one: a build that
    fails or is killed leaves what is served.
    """
    with lake.scratch(home, "bento") as scratch:
        staged, store = scratch / "context", scratch / "store"
        (store / "bentos").mkdir(parents=True)
        (store / "models").symlink_to(home.bentoml / "models", target_is_directory=True)
        for source in (p for pattern in STAGED for p in ROOT.glob(pattern)):
            (staged / source.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, staged / source.relative_to(ROOT))
        name, version = model.split(":")
        own = {"name": name, "models": [model], "labels": {"model": version}, "args": {"model": model, "weights": weights}}
        lines = [f"{key}: {json.dumps(value)}\n" for key, value in own.items()]  # JSON is YAML
        (staged / "bentofile.yaml").write_text(BENTOFILE.read_text() + "".join(lines))
        tag = f"{name}:{version}-{lake.content_hash(staged)[:10]}"
        done = subprocess.run(
            # Named, since below a folder such as .dtrn, the default home, BentoML takes no bentofile of its own accord.
            [sys.executable, "-m", "bentoml", "build", ".", "-f", "bentofile.yaml", "--version", tag.split(":")[1]],
            cwd=staged,  # so that the copy of our packages is imported, not the one of the current folder
            env=os.environ | {"BENTOML_HOME": str(store), "BENTOML_DO_NOT_TRACK": "True"},
            capture_output=True,
            text=True,
        )
        _require_built(done, tag)
        place = Path("bentos") / tag.replace(":", "/")
        lake.put(store / place, home.bentoml / place, scratch / "former")
    return tag


def _require_built(done: subprocess.CompletedProcess[str], tag: str) -> None:
    if done.returncode:
        # Ended by a signal: the machine was short of memory, or is shutting down. All else is the same the next time.
        kind = lake.Transient if done.returncode < 0 else ValueError
        raise kind(f"bentoml build of {tag} failed ({done.returncode}):\n{(done.stdout + done.stderr)[-3000:]}")


def compare(home: Home, contract: Contract, judged_day: str, say: served.Say = print) -> Result:
    """Parity: the built bento, started as a process, against the offline probabilities of the newest judged day that has any;
    None when the champion stays.

    The record and the manifest's detail hold {"requests", "rows", "max_difference"}. Raises NotTheSame when a probability
    differs by more than LARGEST_DIFFERENCE, saying by how much and where; lake.Missing or lake.Blocked when the day, or one
    of its histories', may not be read by now.
    """
    if not evaluation.read(home, judged_day)["promote"]:
        return None
    built = lake.require(home, "bento", judged_day)
    bento = read(home.promotion("bento", judged_day))
    name = read(home.promotion("packaged_model", judged_day))["name"]
    day = samples.newest(home, contract.verdict_days(judged_day))

    def make(path: Path) -> Record:
        from models import artifact
        from models.window import read_requests

        ranker = artifact.load(home.model(name, judged_day))
        chosen = spread(read_requests(home, ranker.contract, [day]), MOST_REQUESTS)
        # Not logged: these rankings were shown to nobody, and drift would count them.
        with served.start(home, bento["tag"], replay=True, until=day, logged=False, say=say) as service:
            asking = Asking.of_days(home, ranker.contract, ranker.contract.history_days(day, day))
            online = rescore(service, asking, chosen)
        found = agreement(ranker.contract, chosen, ranker.score(chosen), online)
        lake.write_json(path, {"bento": bento["tag"], **found})
        return {"detail": found}

    inputs = samples.window_inputs(home, contract, [day]) | {"bento": built.content}
    return lake.build(
        home, "parity", judged_day, home.promotion("parity", judged_day), make, inputs=inputs,
        code=lake.code_hash("assets/packaging.py", "assets/served.py", "assets/asking.py"),
        contract=contract.digest("histories", "behaviours"),
    )  # fmt: skip


def spread(requests: Requests, most: int) -> Requests:
    """At most `most` whole requests, evenly from the shortest histories (empty ones) to the longest."""
    order = np.argsort((requests.end - requests.start).sum(axis=1), kind="stable")
    return requests.take(order[np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(np.int64))])


def rescore(service: served.Served, asking: Asking, requests: Requests) -> NDArray[np.float64]:
    """(B, T): the served probabilities of every sample, all that a sample knows given, its history left to the service."""
    tasks = asking.contract.task_names
    out = np.empty((len(requests), len(tasks)))
    for place, time in enumerate(requests.time.tolist()):
        first, last = requests.offsets[place : place + 2].tolist()
        for begin in range(first, last, MOST_ITEMS):
            rows = slice(begin, min(last, begin + MOST_ITEMS))
            answer = service.rank(asking.rank(requests.user[place], time, requests.item[rows], requests.context[rows]))
            back = np.array(answer["index"]) + begin
            for task, name in enumerate(tasks):
                out[back, task] = answer["probabilities"][name]
    return out


def agreement(contract: Contract, requests: Requests, offline: NDArray[np.float64], online: NDArray[np.float64]) -> Record:
    """{"requests", "rows", "max_difference"} of two (B, T) probabilities. Raises NotTheSame."""
    difference = np.nan_to_num(np.abs(offline - online), nan=np.inf)
    found = {"requests": len(requests.time), "rows": len(requests), "max_difference": float(difference.max(initial=0.0))}
    if not found["rows"]:
        raise NotTheSame("there is no request to compare; a bento that nothing was compared for is not promoted")
    if found["max_difference"] > LARGEST_DIFFERENCE:
        row, task = np.unravel_index(difference.argmax(), difference.shape)
        request = int(requests.request[row])
        beyond = int((difference.max(axis=1) > LARGEST_DIFFERENCE).sum())
        raise NotTheSame(
            f"the bento is not what was judged: {beyond} of {found['rows']} rows differ by more than {LARGEST_DIFFERENCE:g}, "
            f"most {found['max_difference']:.3g} in task {contract.task_names[task]} for user {requests.user[request, 0]}, "
            f"item {requests.item[row, 0]}, time {requests.time[request]}: served {online[row, task]:.6g}, offline "
            f"{offline[row, task]:.6g}; history lengths there {(requests.end - requests.start)[request].tolist()}. Not promoted"
        )
    return found


def crown(home: Home, judged_day: str, who: str, when: datetime) -> registry.Champion | None:
    """Promote the bento of `judged_day`. None when the champion stays, or one was judged on this day or later.

    Raises lake.Missing when what was packaged or built is not the verdict's winner, when this very bento has no parity, and
    when the verdict was on another champion than the one that reigns.
    """
    judged = evaluation.read(home, judged_day)
    if not judged["promote"]:
        return None
    packaged, built, parity = (lake.require(home, stage, judged_day) for stage in ("packaged_model", "bento", "parity"))
    winner = judged["challenger"]
    if packaged.inputs.get(winner["name"]) != winner["content"] or built.inputs["packaged_model"] != packaged.content:
        raise lake.Missing(
            f"the bento of {judged_day} does not hold the {winner['name']} that won; "
            f"materialise packaged_model, bento and parity for {judged_day} again"
        )
    if parity.inputs["bento"] != built.content:
        raise lake.Missing(f"the parity of {judged_day} is that of another bento; materialise parity for {judged_day} again")
    bento = read(home.promotion("bento", judged_day))
    name, why = winner["name"], " ".join(judged["reasons"])
    against = judged["champion"]["tag"] if judged["champion"] else None
    return registry.promote(
        home, judged_day=judged_day, name=name, tag=bento["model"], bento=bento["tag"], against=against,
        who=who, why=why, when=when,
    )  # fmt: skip


def read(path: Path) -> Record:
    """The record of a step."""
    told: Record = json.loads(path.read_text())
    return told


def _weight(folder: Path) -> Record:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return {"files": len(sizes), "megabytes": round(sum(sizes) / 1e6, 2)}


STAYS = "the champion stays"
AGAIN = dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL)
"""For what starts processes of its own. `explained` keeps mistakes of people from being tried again."""


def _told(context: dg.AssetExecutionContext, results: dict[str, Result]) -> dg.MaterializeResult[Any]:
    days: Record = {}
    for day, result in results.items():
        days[day] = result[0].detail if result else STAYS
        told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result[0].detail.items()) if result else STAYS
        context.log.info(
            (f"{day}: " if len(results) > 1 else "") + told + ("" if result is None or result[1] else " (unchanged)")
        )
    recomputed = sum(1 for result in results.values() if result and result[1])
    last = results[context.partition_keys[-1]]
    numbers: Record = last[0].detail if last else {}  # tag and size, or what parity measured
    note = {} if any(results.values()) else {"note": STAYS}
    return dg.MaterializeResult(metadata={**numbers, **note, "recomputed": recomputed, "days": dg.MetadataValue.json(days)})


@dg.asset(deps=[dg.AssetKey("verdict")])
def packaged_model(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    """The winner in the model store: weights, spec and where it comes from."""
    with explained():
        return _told(
            context, {day: package(project.home, project.terms, day, context.run.run_id) for day in context.partition_keys}
        )


@dg.asset(deps=[packaged_model], retry_policy=AGAIN)
def bento(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    """What serves the winner: this program's service, its model's full tag, and what must be installed."""
    with explained():
        return _told(context, {day: build_bento(project.home, project.terms, day) for day in context.partition_keys})


@dg.asset(deps=[bento], retry_policy=AGAIN)
def parity(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    """The bento, started as a process, gives the probabilities that the model was judged by."""
    with explained():
        return _told(
            context, {day: compare(project.home, project.terms, day, context.log.info) for day in context.partition_keys}
        )


@dg.asset(deps=[parity])
def champion(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult[Any]:
    """The pointer that everyone reads moves to the winner: one appended line."""
    with explained():
        who = f"run {context.run.run_id}"
        moved = {day: crown(project.home, day, who, datetime.now(UTC)) for day in context.partition_keys}
    days = {day: change.tag if change else STAYS for day, change in moved.items()}
    context.log.info(
        "; ".join(f"{day}: {tag}" for day, tag in days.items()) if len(days) > 1 else days[context.partition_keys[-1]]
    )
    changes = registry.champions(project.home)
    told: Record = {"reigning": changes[-1].tag if changes else "none yet", "changes": len(changes)}
    recomputed = sum(map(bool, moved.values()))
    return dg.MaterializeResult(metadata={**told, "recomputed": recomputed, "days": dg.MetadataValue.json(days)})
