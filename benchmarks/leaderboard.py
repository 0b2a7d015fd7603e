"""`python -m benchmarks.leaderboard`: do the runs of the comparison that are not on file yet, then write its page.

What is compared is written in `benchmarks.plan`, how one run goes in `benchmarks.measuring`, what follows from the runs in
`benchmarks.standing`. Each run stands by itself in `benchmarks/results/leaderboard/`: a kill at any moment costs the run
in flight, and of a neural model only its last epoch. Several of these may run side by side; none does another's run.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer

from assets import lake, samples
from benchmarks import leaderboard_page, measuring, plan, search
from benchmarks.runs import Record, Run, Store, Where, digest, found, locked
from models import names
from models.contract import Contract, load
from models.home import Home
from orchestration import days

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
STORE = Store(RESULTS / "leaderboard")
PAGE = ROOT / "docs" / "leaderboard.md"


class Part(StrEnum):
    """A part of the comparison; `page` makes no run."""

    WORLDS = "worlds"
    LARGE = "large"
    LOGS = "logs"
    ABLATIONS = "ablations"
    GRADIENTS = "gradients"
    PAGE = "page"


@dataclass(frozen=True)
class Given:
    """A real log with samples: contract, home, and the days that are judged."""

    contract: Contract
    home: Home
    days: tuple[str, ...]

    @classmethod
    def of(cls, text: str, trials: Sequence[Record]) -> Given:
        """`DATASET=HOME`: every day that can be judged and that the search did not learn from, the last three at most.

        Raises typer.BadParameter for what is no such log, or one whose samples are not there.
        """
        dataset, _, root = text.partition("=")
        if not root:
            raise typer.BadParameter(f"'{text}': a log is DATASET=HOME, for example taobao=.dtrn")
        try:
            contract = load(dataset)
            home = Home(Path(root).absolute(), contract.name)
            search.one_by_one(contract)
            searched = max((day for trial in trials if trial["log"] == contract.name for day in trial["days"]), default="")
            chosen = tuple(day for day in days.to_judge(home, contract) if day > searched)[-3:]
            for day in chosen:
                samples.window_inputs(home, contract, [*contract.training_days(day), day])
        except (ValueError, lake.Missing, lake.Blocked) as error:
            raise typer.BadParameter(f"{text}: {error} (`./dtrn backfill` makes samples of a log)") from None
        return cls(contract, home, chosen)


def planned(
    parts: Sequence[Part], models: Sequence[str], seeds: int, logs: Sequence[Given], trials: Sequence[Record]
) -> list[Run]:
    """The runs of these parts, in the order in which they are done."""
    runs: list[Run] = []
    small = [plan.of_world(world) for world in plan.worlds(seeds=plan.SEEDS[:seeds])]
    real = [Where(given.contract.name, day) for given in logs for day in given.days]
    ablated = [w for w in small if w.world and (w.world.selection_conflict, w.world.sign_conflict) == plan.ABLATED]
    if Part.WORLDS in parts:
        runs += [plan.run(where, model, trials) for where in small for model in models]
    if Part.LOGS in parts:
        runs += [plan.run(where, model, trials) for where in real for model in models]
    if Part.GRADIENTS in parts:
        runs += [r for where in ablated[:1] for r in plan.angled(where, trials)]
    if Part.LARGE in parts:
        runs += [plan.run(plan.of_world(plan.LARGE), model, trials) for model in models]
    if Part.ABLATIONS in parts and plan.OURS in models:
        for where in (*ablated, *real[-1:]):
            changed = plan.variants((load(where.dataset) if where.world else logs[-1].contract).actions)
            runs += [plan.run(where, plan.OURS, trials, variant) for variant in changed]
    return runs


def do(
    runs: Iterable[Run],
    store: Store,
    opened: Callable[[Where], measuring.Data],
    contract: Callable[[Where], Contract],
    scratch: Path,
    *,
    device: str = "cpu",
    same_code: bool = False,
    limit: int | None = None,
    until: float | None = None,
) -> list[str]:
    """Make the runs that are not on file; what could not be trained, a sentence each.

    A log is opened when one of its runs is missing, and then its runs of other content are missing too.
    `limit`: most runs · `until`: `time.monotonic()` after which none is begun.
    """
    locks = scratch / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    code = measuring.code() if same_code else None
    made, failed = 0, list[str]()
    for where, group in itertools.groupby(runs, key=lambda run: run.where):
        keyed = [(run, run.key(contract(where))) for run in group]
        records = store.records()
        if all(found(records, key, code=code) for _, key in keyed):
            continue
        if _over(made, limit, until):
            break
        data = opened(where)
        for run, key in keyed:
            lock = locks / digest(key)
            lock.touch()
            with locked(lock, wait=False) as ours:
                if not ours or found(store.records(), key, content=data.log.content, code=code):
                    continue
                if _over(made, limit, until):
                    return failed
                print(measuring.told(run), flush=True)
                made += 1
                try:
                    store.keep(measuring.measured(run, data, scratch / "checkpoints", device=device, say=_say))
                    shutil.rmtree(measuring.checkpoint_of(run, data, scratch / "checkpoints"), ignore_errors=True)
                except ValueError as error:
                    failed.append(f"{measuring.told(run)}: {error}")
                    print(f"    failed: {error}", flush=True)
    return failed


def _over(made: int, limit: int | None, until: float | None) -> bool:
    return (limit is not None and made >= limit) or (until is not None and time.monotonic() >= until)


def _say(line: str) -> None:
    print(line, flush=True)


def main(
    only: Annotated[list[Part] | None, typer.Option(help="Only these parts (repeat it); all when left out.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="Only these models (repeat it), listed or not.")] = None,
    seeds: Annotated[int, typer.Option(min=1, max=len(plan.SEEDS), help="Worlds of each kind.")] = len(plan.SEEDS),
    log: Annotated[list[str] | None, typer.Option(help="A real log with samples, DATASET=HOME (repeat it).")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most runs to make now.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Begin no run after so many minutes.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    device: Annotated[str, typer.Option(help="Where neural models are trained: cpu, cuda, or auto.")] = "cpu",
    same_code: Annotated[bool, typer.Option("--same-code", help="Let only runs of today's code count as done.")] = False,
) -> None:
    """Do the runs that are missing, one by one, and write the page from all that are there."""
    begun = time.monotonic()
    try:
        chosen = [name if name in plan.BASELINES else names.canonical(name) for name in model or plan.MODELS]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    torch.set_num_threads(threads)
    scratch = Path(os.environ.get("DTRN_HOME") or ROOT / ".dtrn").absolute() / "leaderboard"
    trials = plan.searched(search.kept(search.RESULTS))
    logs = [Given.of(text, trials) for text in log or ()]
    homes = {given.contract.name: given for given in logs}

    def contract(where: Where) -> Contract:
        return load(where.dataset) if where.world else homes[where.dataset].contract

    def opened(where: Where) -> measuring.Data:
        if where.world is None:
            return measuring.Data.read(homes[where.dataset].home, contract(where), where.day)
        place = scratch / "worlds"
        place.mkdir(parents=True, exist_ok=True)
        with locked(place):
            home = where.world.home(place)
        return measuring.Data.read(home, contract(where), where.day)

    runs = planned(only or list(Part), chosen, seeds, logs, trials)
    there = STORE.records()
    print(f"{len(runs)} runs planned, {sum(found(there, r.key(contract(r.where))) is not None for r in runs)} on file")
    failed = do(
        runs, STORE, opened, contract, scratch, device=device, same_code=same_code, limit=limit,
        until=None if minutes is None else begun + 60 * minutes,
    )  # fmt: skip
    leaderboard_page.write(STORE.records(), trials, page=PAGE, summary=RESULTS / "leaderboard.json")
    print(PAGE)
    if failed:
        print("\n".join(["could not be trained:", *failed]))
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
