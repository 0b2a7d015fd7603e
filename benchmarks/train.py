"""`python -m benchmarks.train`: how fast ours trains beside torch-rechub, and beside the plain form of the same model.

On one drawn exposure log (`benchmarks.exposures`) with a small and a large item table, in float32. The sides are processes that
alternate, a round at a time, so that a slow minute of the machine meets all; the median of the rounds counts, and their spread
is kept. What a ratio must be was written down before it was measured, and one that falls short is printed as it is. Memory is
the peak of a fresh process that holds the whole log. When the peer cannot be installed its rows say 'not measured'.
"""

from __future__ import annotations

import itertools
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
from rich.table import Table

from assets import lake
from benchmarks import exposures, machine, quality
from benchmarks.contest import ENVIRONMENT, ROOT, PeerMissing, Side, peer_python
from benchmarks.limits import Device, reached
from benchmarks.ours import EXPERT_WIDTHS, EXPERTS, ON_GPU, TERMS, TOWER, WIDTH, Trainer
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
class Comparison:
    """Two passes and their ratio, ours first. `least`: what it must be with the small item table, and with the large one."""

    name: str
    told: str
    ours: str
    other: str
    least: tuple[float | None, float | None] = (None, None)


COMPARISONS = (
    Comparison("pooled", "MMoE, pooled histories ÷ torch-rechub's MMoE as shipped", "mmoe", "shipped", (5, 10)),
    Comparison(
        "pooled_alike",
        "the same, BatchNorm in ours, its batches made beforehand, one environment",
        "mmoe-normed",
        "collated",
    ),
    Comparison("dtrn", "DTRN + MMoE ÷ torch-rechub's MMoE as shipped", "dtrn", "shipped", (1.2, 3)),
    Comparison("dtrn_slim", "DTRN + slim (a head of a quarter of MMoE's products) ÷ the same", "dtrn+slim", "shipped"),
    Comparison("pooled_told", "MMoE told of matches and statistics, as by default ÷ the same", "mmoe-told", "shipped"),
    Comparison("dtrn_told", "DTRN + MMoE told of them ÷ the same", "dtrn-told", "shipped"),
    Comparison("pooled_gpu", "MMoE, pooled histories, on the GPU in bfloat16 ÷ ours on the processor", "mmoe-cuda", "mmoe"),
    Comparison("dtrn_gpu", "DTRN + MMoE on the GPU in bfloat16 ÷ ours on the processor", "dtrn-cuda", "dtrn"),
)
PADDED = Comparison("dtrn_vs_padded", "DTRN + MMoE ÷ the plain padded DTRN", "dtrn", "dtrn-padded", (50, None))
MEMORY, FIRST_BATCH = 0.5, 2.0


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


def speed(turn: dict[str, Any], by: str = "seconds") -> float:
    """Samples a second of a turn, by the wall's clock or the processor's."""
    return float(turn["samples"] / turn[by])


def _ratio(rounds: dict[str, list[float]]) -> float | None:
    """Median ÷ median, ours first; None where a side has no round."""
    return statistics.median(rounds["ours"]) / statistics.median(rounds["other"]) if all(rounds.values()) else None


def compared(comparison: Comparison, least: float | None, rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Both sides' samples a second, median and by round, the ratio of the medians, and the spread of the rounds' own ratios.

    Wall time is what a user waits and what is held to a number. Processor time, beside it, is what other programs blur less.
    """
    sides = {"ours": comparison.ours, "other": comparison.other}
    by_round = {side: [speed(turn) for turn in rounds.get(name, [])] for side, name in sides.items()}
    medians = {side: statistics.median(speeds) if speeds else None for side, speeds in by_round.items()}
    ratio = _ratio(by_round)
    busy = {side: [speed(turn, "processor_seconds") for turn in rounds.get(name, [])] for side, name in sides.items()}
    each = [ours / other for ours, other in zip(by_round["ours"], by_round["other"], strict=False)]
    return {
        "what": comparison.told,
        "of": sides,
        "unit": "samples/s",
        **medians,
        "ratio": ratio,
        "rounds": by_round,
        "ratio_of_rounds": [min(each), max(each)] if each else None,
        "by_processor_time": {"rounds": busy, "ratio": _ratio(busy)},
        "must_be": None if least is None else f">= {least:g}",
        "ok": None if least is None or ratio is None else ratio >= least,
    }


def held_to(entry: dict[str, Any], value: float | None, most: float) -> dict[str, Any]:
    """`entry` with what `value` must be at most, and whether it is."""
    return {**entry, "must_be": f"<= {most:g}", "ok": None if value is None else value <= most}


def memory_of(peaks: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The worst of ours ÷ the peer's over models and tables; `peaks` is {table: {pass: bytes}}. Without a peer ours alone."""
    pairs = [
        (of[name], of.get("shipped"), f"{name}, {items} items") for items, of in peaks.items() for name in ("mmoe", "dtrn")
    ]
    ours, other, which = max(pairs, key=lambda pair: pair[0] / (pair[1] or 1))
    ratio = None if other is None else ours / other
    entry = {"what": f"peak memory ÷ torch-rechub's, worst of all: {which}", "unit": "bytes", "ours": ours, "other": other}
    return held_to({**entry, "ratio": ratio, "all": peaks}, ratio, MEMORY)


def first_batch_of(ready: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The slower item table's time to the first batch: from raw keys for ours, from rows for the peer, which pads them."""
    first = {items: {side: said["first_batch"] for side, said in sides.items()} for items, sides in ready.items()}
    slower = max(first, key=lambda items: first[items]["ours"]["seconds"])
    ours, other = first[slower]["ours"]["seconds"], first[slower].get("peer", {}).get("seconds")
    told = f"time to the first batch, raw keys in memory, vocabulary included, {slower} items (the peer pads rows)"
    return held_to({"what": told, "unit": "s", "ours": ours, "other": other, "ratio": None, "all": first}, ours, FIRST_BATCH)


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


def table(result: dict[str, Any]) -> Table:
    """Ours, the other side, their ratio with the spread of the rounds, what it must be, and whether it is."""
    out = Table(title="training; float32, on a GPU bfloat16", title_justify="left")
    out.add_column("")
    for column in ("ours", "other", "ratio", "of rounds", "of processor time", "must be", ""):
        out.add_column(column, justify="right")
    for name, side in result["sides"].items():
        spread, items = side.get("ratio_of_rounds"), name.rsplit("_", 1)[-1]
        what = side["what"] + (f", {items} items" if items in result["logs"] else "")
        ratio = "" if name == "first_batch" else told(side["ratio"], "")
        busy = side["by_processor_time"]["ratio"] if "by_processor_time" in side else None
        out.add_row(
            what,
            told(side["ours"], side["unit"]),
            told(side["other"], side["unit"]),
            ratio,
            "" if spread is None else f"{spread[0]:.2f} to {spread[1]:.2f}",
            "" if busy is None else f"{busy:.2f}",
            side["must_be"] or "",
            {True: "ok", False: "below", None: ""}[side["ok"]] if side["must_be"] else "",
        )
    for items, devices in result["limits"].items():
        for (device, title), model in itertools.product({"cpu": "the processor", "cuda": "the GPU"}.items(), ("mmoe", "dtrn")):
            found = (devices[device] or {}).get(model)
            out.add_row(
                f"{model} on {title} ÷ what its {found['limit'] if found else 'products or bytes'} allow, {items} items",
                told(found and found["speed"], "samples/s"),
                told(found and found["most"], "samples/s"),
                told(found and found["fraction"], ""),
                *("", "", "", ""),
            )
    for model, found in result["auc"]["models"].items():
        low, high = found["interval"]
        means = [float(np.mean(found[way])) for way in quality.WAYS]
        out.add_row(
            f"AUC of {model}, the fast way - the plain way, mean over tasks and {len(result['auc']['seeds'])} seeds",
            *(f"{mean:.4f}" for mean in means),
            f"{found['difference']:+.4f}",
            f"{low:+.4f} to {high:+.4f}",
            "",
            "holds 0 or above",
            "ok" if found["ok"] else "below",
        )
    return out


def told(value: float | None, unit: str) -> str:
    """A figure with its unit, for people."""
    if value is None:
        return "not measured"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB"
    return f"{value:,.0f}/s" if unit == "samples/s" else f"{value:.2f} {unit}".strip()


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
