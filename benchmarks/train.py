"""`python -m benchmarks.train`: how fast ours trains beside torch-rechub, and beside the plain form of the same model.

On one drawn exposure log (`benchmarks.exposures`) with a small and a large item table, in float32. The sides are processes that
alternate, a round at a time, so that a slow minute of the machine meets all; the median of the rounds counts, and their spread
is kept; what they come to and must be is in `benchmarks.ratios`. Memory is the peak of a fresh process that holds the whole
log. When the peer cannot be installed its rows say 'not measured'.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from assets import lake
from benchmarks import exposures, machine, quality
from benchmarks.contest import ENVIRONMENT, ROOT, PeerMissing, Side, peer_python
from benchmarks.limits import Device, reached
from benchmarks.ours import EXPERT_WIDTHS, EXPERTS, ON_GPU, TERMS, TOWER, WIDTH, Trainer
from benchmarks.ratios import COMPARISONS, PADDED, compared, first_batch_of, memory_of, speed, table
from models.vocabulary import Vocabulary

RESULTS = ROOT / "benchmarks" / "results" / "train.json"
PEER_HOME = ROOT / ".dtrn" / "peer"
PASSES = {
    "mmoe": "ours", "dtrn": "ours", "dtrn+slim": "ours", "mmoe-told": "ours", "dtrn-told": "ours", "mmoe-normed": "ours",
    "shipped": "peer", "collated": "alike", "dtrn-padded": "padded", "mmoe-cuda": "gpu", "dtrn-cuda": "gpu",
}  # fmt: skip
"""What is timed → the process that trains it.

`peer` has the environment that its users have, `alike` the one that our commands set. The plain padded form has a process to
itself: what it takes and gives back would slow the next pass beside it.
"""


@dataclass(frozen=True)
class Settings:
    """All that a run depends on but the machine."""

    samples: int = 1_000_000
    items: tuple[int, int] = (50_000, 1_000_000)
    rounds: int = 5
    round_samples: int = 100_000
    padded_samples: int = 2048
    memory_samples: int = 40_960
    batch: int = TERMS.batch_samples
    threads: int = os.cpu_count() or 1
    seed: int = 1
    auc_models: tuple[str, ...] = ("mmoe", "dtrn", "dtrn+slim")
    auc_seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    auc_samples: int = 80_000
    auc_items: int = 2_000
    auc_rows: int = 200_000


def label(items: int) -> str:
    """50000 → 50k, 1000000 → 1m."""
    for unit, size in (("m", 1_000_000), ("k", 1000)):
        if items >= size and items % size == 0:
            return f"{items // size}{unit}"
    return str(items)


class Sides:
    """The log of one item table on disk, and processes that train on it."""

    def __init__(self, settings: Settings, items: int, folder: Path, python: Path | None) -> None:
        self.settings, self.items, self.python = settings, items, python
        self.raw, self.encoded = folder / "raw", folder / "encoded"
        requests = exposures.draw(settings.samples, items, settings.seed).requests
        exposures.save(requests, self.raw)
        exposures.save(Vocabulary.fit(requests, exposures.CONTRACT).encode(requests), self.encoded)
        lengths = requests.end - requests.start
        self.log = {
            "samples": len(requests),
            "requests": len(requests.time),
            "events_per_request": float(lengths.sum(1).mean()),
            "lengths": {
                name: {f"p{q}": float(np.percentile(lengths[:, action], q)) for q in (10, 50, 90, 99)}
                for action, name in enumerate(exposures.ACTIONS)
            },
            "base_rates": dict(zip(exposures.RATES, requests.label.mean(0).tolist(), strict=True)),
        }

    def start(self, side: str) -> Side:
        """A fresh process of PASSES; the peer reads rows, ours the raw keys that a trainer is given."""
        s = self.settings
        terms = {"items": self.items, "batch": s.batch, "seed": s.seed, "threads": s.threads}
        if side in ("ours", "padded", "gpu"):
            return Side(Path(sys.executable), "ours.py", self.raw, **terms, device="cuda" if side == "gpu" else None)
        assert self.python is not None
        return Side(self.python, "peer.py", self.encoded, **terms, bare=side == "peer")

    def passes(self, *, padded: bool) -> list[str]:
        """What is timed here."""
        gpu = torch.cuda.is_available()
        there = {"ours": True, "peer": self.python, "alike": self.python, "padded": padded, "gpu": gpu}
        return [name for name, side in PASSES.items() if there[side]]

    def speeds(self, *, padded: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """({pass: samples a second by round}, {side: what its process said when it was ready}), all passes taking turns."""
        passes = self.passes(padded=padded)
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in passes}
        with ExitStack() as stack:
            sides = {side: stack.enter_context(self.start(side)) for side in dict.fromkeys(PASSES[name] for name in passes)}
            for number in range(self.settings.rounds + 1):  # round 0 warms up
                for name in passes:
                    samples = self.settings.padded_samples if name == "dtrn-padded" else self.settings.round_samples
                    asked = samples if number else min(samples, 2 * self.settings.batch)
                    turn = sides[PASSES[name]].turn(name, asked, 1000 * self.settings.seed + number)
                    if number:
                        rounds[name].append(turn)
                if number:
                    told = ", ".join(f"{name} {speed(turns[-1]):,.0f}" for name, turns in rounds.items())
                    print(f"  {label(self.items)} items, round {number}, samples/s: {told}", flush=True)
            return rounds, {side: sides[side].ready for side in ("ours", "peer") if side in sides}

    def limits(self, rounds: dict[str, list[dict[str, Any]]], devices: dict[str, Device | None]) -> dict[str, Any]:
        """{device: {model: how much of what the device allows is reached}}; None where there is no such device."""
        trainer = Trainer(self.raw, self.items, self.settings.batch, self.settings.seed)
        work = {model: trainer.work(model) for model in ("mmoe", "dtrn")}
        found: dict[str, Any] = dict.fromkeys(devices)
        for name, device in devices.items():
            if device is not None:
                passes = {model: model + ("" if name == "cpu" else ON_GPU) for model in work}
                found[name] = {
                    model: reached(statistics.median(map(speed, rounds[of])), work[model], device)
                    for model, of in passes.items()
                }
        return found

    def memory(self) -> dict[str, int]:
        """{pass: peak bytes of a process that trained nothing else}."""
        peaks = {}
        for name in ("mmoe", "dtrn", "shipped"):
            if PASSES[name] == "peer" and not self.python:
                continue
            with self.start(PASSES[name]) as side:
                peaks[name] = int(side.turn(name, self.settings.memory_samples, self.settings.seed)["peak_bytes"])
            print(f"  {label(self.items)} items, peak memory of {name}: {peaks[name] / 2**20:,.0f} MiB", flush=True)
        return peaks


def run(settings: Settings, python: Path | None, missing: str | None) -> dict[str, Any]:
    """Measure everything; `python` is the peer's interpreter, or None and `missing` says why there is no peer."""
    sides: dict[str, Any] = {}
    logs, peaks, ready, limits = {}, {}, {}, {}
    gpu = Device.measured(torch.device("cuda"), torch.bfloat16) if torch.cuda.is_available() else None
    devices = {"cpu": Device.measured(torch.device("cpu"), torch.float32), "cuda": gpu}
    for place, items in enumerate(settings.items):
        name = label(items)
        print(f"{settings.samples:,} samples, {items:,} items", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            both = Sides(settings, items, Path(folder), python)
            logs[name] = both.log
            rounds, ready[name] = both.speeds(padded=not place)
            peaks[name] = both.memory()
            limits[name] = both.limits(rounds, devices)
        for comparison in COMPARISONS:
            sides[f"{comparison.name}_{name}"] = compared(comparison, comparison.least[place], rounds)
        if not place:
            sides[PADDED.name] = compared(PADDED, PADDED.least[place], rounds)
    sides["memory"], sides["first_batch"] = memory_of(peaks), first_batch_of(ready)
    auc = quality.compare(
        settings.auc_models,
        settings.auc_seeds,
        samples=settings.auc_samples,
        items=settings.auc_items,
        rows=settings.auc_rows,
    )
    for found in auc["models"].values():
        found["ok"] = found["interval"][1] >= 0
    about = machine.about()
    peer = next((said["peer"]["versions"] for said in ready.values() if "peer" in said), None)
    return {
        "what": "python -m benchmarks.train",
        **about,
        "versions": {**about["versions"], "peer": peer},
        "peer_missing": missing,
        "environment": {name: os.environ.get(name) for name in ENVIRONMENT},
        "settings": asdict(settings),
        "widths": {"experts": EXPERTS, "expert_widths": EXPERT_WIDTHS, "tower": TOWER, "embedding": WIDTH},
        "logs": logs,
        "ratios": {name: sides[name]["ratio"] for name in sides if name != "first_batch"},
        "first_batch_s": sides["first_batch"]["ours"],
        "sides": sides,
        "limits": limits,
        "auc": auc,
    }


def measure(settings: Settings, peer: Path | None, out: Path) -> None:
    """Write and print what `run` found; the peer's environment is made when `peer`, its python, is not given."""
    missing = None
    try:
        peer = peer or peer_python(PEER_HOME)
    except PeerMissing as error:
        missing = str(error)
        print(f"the peer is not measured: {missing}", flush=True)
    torch.set_num_threads(settings.threads)
    result = run(settings, peer, missing)
    lake.write_json(out, result)
    Console(width=190).print(table(result))
    print(out)


def main(
    samples: Annotated[int, typer.Option(min=1000, help="Samples of the log.")] = Settings.samples,
    items: Annotated[tuple[int, int], typer.Option(help="Rows of the small and of the large item table.")] = Settings.items,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the median counts.")] = Settings.rounds,
    round_samples: Annotated[int, typer.Option(min=1, help="Samples of a round.")] = Settings.round_samples,
    padded_samples: Annotated[int, typer.Option(min=1, help="Those of the plain padded DTRN.")] = Settings.padded_samples,
    batch: Annotated[int, typer.Option(min=2, help="Samples of a batch.")] = Settings.batch,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each side; all cores when left out.")] = os.cpu_count() or 1,
    seed: Annotated[int, typer.Option(help="Seed of the log, the weights and the rounds.")] = Settings.seed,
    auc_samples: Annotated[
        int, typer.Option(min=1000, help="Samples of the logs that AUC is compared on.")
    ] = Settings.auc_samples,
    auc_items: Annotated[int, typer.Option(min=1, help="Items that those logs show.")] = Settings.auc_items,
    auc_rows: Annotated[int, typer.Option(help="Rows of the item table there, most of them never seen.")] = Settings.auc_rows,
    auc_seeds: Annotated[int, typer.Option(min=2, help="Logs that AUC is compared on.")] = len(Settings.auc_seeds),
    peer: Annotated[
        Path | None, typer.Option(help="Python that has torch-rechub; an environment is made for it when left out.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the figures go, as JSON.")] = RESULTS,
) -> None:
    """Time training on a drawn log: ours, torch-rechub's and the plain padded form; then memory, first batch, and AUC."""
    settings = Settings(
        samples=samples,
        items=items,
        rounds=rounds,
        round_samples=round_samples,
        padded_samples=padded_samples,
        memory_samples=min(samples, 20 * batch),
        batch=batch,
        threads=threads,
        seed=seed,
        auc_samples=auc_samples,
        auc_items=auc_items,
        auc_rows=auc_rows,
        auc_seeds=tuple(range(seed, seed + auc_seeds)),
    )
    measure(settings, peer, out)


if __name__ == "__main__":
    typer.run(main)
