"""What the rounds of `benchmarks.train` come to: ratios and what each must be, the worst memory, and the table.

What a ratio must be was written down before it was measured.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import quality


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
