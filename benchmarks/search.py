"""`python -m benchmarks.search`: which learning rate, decay and start of the embeddings are good, for every model alike.

The points that may be tried are written here, and so is their order: each model gets the first N of one list, whatever came
out of them, so that no model is searched longer than another. A trial trains once with one seed, stops early on the last
training day and is scored on that day: mean over tasks of log loss ÷ entropy of the base rate, less is better. The days that a
demo judges are later ones and are never read here. So the best of N is a choice, and its score is no result: it is flattered by
having been chosen.

Each trial stands by itself in `benchmarks/results/search.json`, and a search that is run again does only those not yet there.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from assets import lake, samples
from benchmarks import machine
from benchmarks.worlds import World
from models import window
from models.checkpoint import Epoch
from models.config import RECIPES
from models.contract import Contract, load
from models.home import Home
from models.requests import Requests
from models.training import train
from orchestration import days

NAMES = ("learning_rate", "embedding_decay", "embedding_std")
SETTINGS = (
    (4e-3, 1e-1, 0.1),
    (4e-3, 1e-1, 0.3),  # the defaults: of best mean rank for most models
    (2e-3, 1e-1, 0.3),
    (4e-3, 3e-1, 0.3),
    (2e-3, 3e-2, 0.1),
    (8e-3, 1e-1, 0.3),
    (4e-3, 1e-1, 1.0),
    (4e-3, 3e-2, 0.3),
    (4e-3, 3e-3, 0.1),
    (2e-3, 3e-3, 0.03),
)
"""Every setting that may be tried, in the order in which every model tries them."""
WORLDS = (
    World(seed=101, sign_conflict=1, selection_conflict=0),
    World(seed=102, sign_conflict=0, selection_conflict=1),
)
"""Of the size that the leaderboard compares on: what is good for a smaller one is not for it. It uses worlds of other seeds."""

TRIALS, EPOCHS, PATIENCE, SEED = 3, 20, 3, 1
RESULTS = Path(__file__).resolve().parent / "results" / "search.json"
SCRATCH = Path(__file__).resolve().parent.parent / ".dtrn" / "search"

Setting = dict[str, float]
Record = dict[str, Any]


@dataclass(frozen=True)
class Log:
    """One log to learn on: fit on the days before the last, stop early and score on the last."""

    name: str
    contract: Contract
    days: list[str]
    content: str
    fit: Requests
    held_out: Requests

    @classmethod
    def read(cls, name: str, home: Home, contract: Contract, judged_day: str | None = None) -> Log:
        """The training days of `judged_day`; by default of the earlier of the two that a demo judges, the last that can be."""
        one_by_one(contract)
        judged = judged_day or days.to_judge(home, contract)[-2:][0]
        chosen = contract.training_days(judged)
        content = hashlib.sha256(json.dumps(samples.window_inputs(home, contract, chosen)).encode()).hexdigest()[:16]
        fit, held_out = (window.read_requests(home, contract, part) for part in (chosen[:-1], chosen[-1:]))
        return cls(name, contract, chosen, content, fit, held_out)


def one_by_one(contract: Contract) -> None:
    """Raises ValueError for a contract whose days are judged together: models are compared on a day here."""
    if contract.training.judged_days > 1:
        raise ValueError(f"models are compared day by day; set training.judged_days = 1 in the contract '{contract.name}'")


def settings(trials: int) -> list[Setting]:
    """The first `trials` of SETTINGS. Raises ValueError for more than there are, or none."""
    if not 1 <= trials <= len(SETTINGS):
        raise ValueError(f"{trials} trials were asked for; {len(SETTINGS)} settings are written down")
    return [dict(zip(NAMES, values, strict=True)) for values in SETTINGS[:trials]]


def budget(epochs: int = EPOCHS, patience: int = PATIENCE) -> Record:
    """What all trials of a search have alike."""
    return {"epochs": epochs, "patience": patience, "seed": SEED, "device": "cpu"}


def key_of(log: Log, model: str, setting: Setting, terms: Record) -> Record:
    """What a trial's result depends on, to be found again by: data, recipe, setting, terms of training, code."""
    key = {
        "log": log.name,
        "content": log.content,
        "contract": log.contract.digest(),
        "days": log.days,
        "model": model,
        "recipe": replace(RECIPES[model], embedding_std=setting["embedding_std"]).to_json(),
        "setting": setting,
        "terms": terms,
    }
    written: Record = json.loads(json.dumps(key))  # as the file will give it back
    return written


def trial(log: Log, model: str, setting: Setting, terms: Record, scratch: Path) -> Record:
    """Train once and say how it went.

    A trial that was cut off goes on from its last epoch, kept in `scratch`; its seconds are then those of the rest.
    """
    asked = {**terms, "learning_rate": setting["learning_rate"], "embedding_decay": setting["embedding_decay"]}
    contract = log.contract.model_copy(update={"training": log.contract.training.model_copy(update=asked)})
    recipe = replace(RECIPES[model], width=contract.training.width, embedding_std=setting["embedding_std"])
    key = key_of(log, model, setting, terms)
    folder = scratch / hashlib.sha256(json.dumps([key, code()], sort_keys=True).encode()).hexdigest()[:16]

    def report(epoch: Epoch) -> None:
        print(f"    epoch {epoch.epoch}: {epoch.score:.4f}", flush=True)

    began, busy = time.perf_counter(), time.process_time()
    trained = train(recipe, contract, log.fit, log.held_out, checkpoint=folder, report=report)
    best = min(trained.history, key=lambda epoch: epoch.score)
    shutil.rmtree(folder)
    return {
        **key,
        "code": code(),
        "score": best.score,
        "auc": {task: value if value == value else None for task, value in best.validation_auc.items()},
        "best_epoch": best.epoch,
        "epochs": len(trained.history),
        "parameters": sum(p.numel() for p in trained.network.parameters()),
        "samples": {"fit": len(log.fit), "held_out": len(log.held_out)},
        "seconds": time.perf_counter() - began,
        "processor_seconds": time.process_time() - busy,
        "threads": torch.get_num_threads(),
        **machine.about(),
    }


@functools.cache
def code() -> str:
    """Hash of all source that decides what a trial comes to; read once, since a file that changes later is not what runs."""
    return lake.code_hash("models/training.py", "models/window.py")


def kept(results: Path) -> list[Record]:
    """The trials on file, oldest first."""
    return list(json.loads(results.read_text())["trials"]) if results.is_file() else []


def keep(results: Path, record: Record) -> None:
    """Add one trial to the file; two searches that run side by side (of different models) do not lose each other's."""
    results.parent.mkdir(parents=True, exist_ok=True)
    about = {"what": "python -m benchmarks.search", "settings": [dict(zip(NAMES, s, strict=True)) for s in SETTINGS]}
    folder = os.open(results.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        lake.write_json(results, {**about, "trials": [*kept(results), record]})
    finally:
        os.close(folder)


def done(records: Sequence[Record], key: Record, *, any_code: bool = False) -> Record | None:
    """The newest trial on file that is this one; one of other code counts only when asked for."""
    fit = [r for r in records if all(r[name] == value for name, value in key.items()) and (any_code or r["code"] == code())]
    return fit[-1] if fit else None


def search(
    logs: Sequence[Log],
    models: Sequence[str],
    trials: int,
    terms: Record,
    *,
    results: Path,
    scratch: Path,
    any_code: bool = False,
) -> list[Record]:
    """The records of `trials` trials of every model on every log, making those that are not on file.

    Trials are the outer loop, so that a search that is cut off has tried all models about equally often.
    """
    found = []
    for number, setting in enumerate(settings(trials)):
        for log, model in itertools.product(logs, models):
            record = done(kept(results), key_of(log, model, setting, terms), any_code=any_code)
            if record is None:
                print(f"{model} on {log.name}, trial {number + 1} of {trials}: {told(setting)}", flush=True)
                record = trial(log, model, setting, terms, scratch)
                keep(results, record)
            found.append(record)
    return found


def mean_ranks(records: Sequence[Record]) -> list[tuple[Setting, float]]:
    """Settings with their mean rank (1: best; ties share theirs) over the (log, model) pairs of `records`, best first.

    Every pair must have tried the same settings, or ranks would not be comparable: ValueError.
    """
    pairs: dict[tuple[str, str], dict[str, float]] = {}
    for r in records:
        pairs.setdefault((r["log"], r["model"]), {})[json.dumps(r["setting"])] = r["score"]
    tried = [set(scores) for scores in pairs.values()]
    if any(other != tried[0] for other in tried):
        raise ValueError("not every model has tried the same settings on every log")
    ranks = {
        setting: sum(
            sum(other < scores[setting] for other in scores.values())
            + (1 + sum(other == scores[setting] for other in scores.values())) / 2
            for scores in pairs.values()
        )
        / len(pairs)
        for setting in tried[0]
    }
    return [(json.loads(setting), ranks[setting]) for setting in sorted(ranks, key=lambda s: (ranks[s], s))]


def told(setting: Setting) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in setting.items())


def show(records: Sequence[Record], console: Console) -> None:
    """A table for each log and model, best first; then the settings of best mean rank over the logs, by model and for all."""
    names = sorted({r["log"] for r in records})
    models = list(dict.fromkeys(r["model"] for r in records))
    for log, model in itertools.product(names, models):
        table = Table(title=f"{model} on {log}", title_justify="left")
        for column in ("learning rate", "embedding decay", "embedding std", "score", "AUC", "best epoch", "seconds"):
            table.add_column(column, justify="right")
        for r in sorted((r for r in records if (r["log"], r["model"]) == (log, model)), key=lambda r: r["score"]):
            aucs = ", ".join(f"{task} " + ("-" if value is None else f"{value:.4f}") for task, value in r["auc"].items())
            numbers = [f"{r['setting'][name]:g}" for name in NAMES]
            table.add_row(*numbers, f"{r['score']:.4f}", aucs, f"{r['best_epoch']} of {r['epochs']}", f"{r['seconds']:.0f}")
        console.print(table)
    for model in (*models, None):
        setting, rank = mean_ranks([r for r in records if model in (None, r["model"])])[0]
        console.print(f"best mean rank over {len(names)} log(s), {model or 'all models together'}: {rank:.2f}, {told(setting)}")
    if others := sum(r["code"] != code() for r in records):
        console.print(f"{others} of {len(records)} trials were made by other code than today's")


def main(
    log: Annotated[
        list[str] | None,
        typer.Option(help="A log with samples: DATASET=HOME, or DATASET=HOME@DAY to search for another judged day."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials of each model on each log.")] = TRIALS,
    model: Annotated[list[str] | None, typer.Option(help="Only these models (repeat it); all when left out.")] = None,
    worlds: Annotated[bool, typer.Option(help="Search on the simulated worlds too.")] = True,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of a trial.")] = EPOCHS,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better score that end a trial.")] = PATIENCE,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    any_code: Annotated[bool, typer.Option("--any-code", help="Let trials of other code count as done.")] = False,
) -> None:
    """Try the same settings on every model and log, keep every trial, and tell which came out best."""
    if unknown := set(model or ()) - set(RECIPES):
        raise typer.BadParameter(f"no model {', '.join(sorted(unknown))}; models are {', '.join(RECIPES)}")
    torch.set_num_threads(threads)
    logs = [_given(text) for text in log or ()]
    for world in WORLDS if worlds else ():
        home = world.home(SCRATCH)
        logs.append(Log.read(world.name, home, load(home.dataset)))
    if not logs:
        raise typer.BadParameter("no log: give one by --log, or leave --no-worlds out")
    records = search(
        logs,
        model or list(RECIPES),
        trials,
        budget(epochs, patience),
        results=RESULTS,
        scratch=SCRATCH / "checkpoints",
        any_code=any_code,
    )
    show(records, Console(width=140))
    print(RESULTS)


def _given(text: str) -> Log:
    """The log that `--log` names: DATASET=HOME or DATASET=HOME@DAY."""
    dataset, _, rest = text.partition("=")
    root, _, day = rest.partition("@")
    if not root:
        raise typer.BadParameter(f"'{text}': a log is DATASET=HOME, for example taobao=.dtrn")
    contract = load(dataset)
    return Log.read(contract.name, Home(Path(root).absolute(), contract.name), contract, day or None)


if __name__ == "__main__":
    typer.run(main)
