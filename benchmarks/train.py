"""`python -m benchmarks.train`: samples a second that each neural model trains on, and the time to score one request.

The log is drawn here, so that speed depends on shapes alone: about ten impressions a request, four actions, 40 events of
history a request. The models take turns, each round timing every one of them, so that a slow minute of the machine meets all;
the median round counts. Wall time is what a user waits; processor time, beside it, is what other programs blur less.
Nothing is learned from these labels: quality is measured on logs, not here.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks import machine
from models.batches import Loader
from models.config import RECIPES
from models.embeddings import Shape
from models.network import Network
from models.requests import Requests, Sequences
from models.training import optimiser_of, predict

LENGTHS = (50, 20, 20, 20)
Pair = tuple[float, float]
RESULTS = Path(__file__).resolve().parent / "results"


def draw(users: int, items: int, requests: int, candidates: float, seed: int) -> tuple[Requests, Shape]:
    """Encoded requests (rows, not keys) of a made-up shop, about `candidates` impressions each; the shape that they have."""
    random = np.random.default_rng(seed)
    features = (items, 500, 20)
    events = [users * n for n in (40, 6, 4, 3)]

    def rows(n: int) -> np.ndarray[Any, Any]:
        popular = (items * random.random(n) ** 3).astype(np.int32)
        return np.stack([1 + popular % size for size in features], axis=1).astype(np.int32)

    span = 10 * 86_400_000
    who = [np.sort(random.integers(0, users, n)) for n in events]
    when = [random.integers(0, span, n) for n in events]
    sequences = Sequences.from_events(who, [rows(n) for n in events], when)
    user, time_ms = random.integers(0, users, requests), random.integers(span // 2, span, requests)
    start, end = sequences.span(user, time_ms, np.zeros_like(time_ms), LENGTHS)
    sizes = np.full(requests, round(candidates)) if requests == 1 else 1 + random.poisson(candidates - 1, requests)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    samples = int(offsets[-1])
    drawn = Requests(
        user=np.stack([1 + user, 1 + user % 8], axis=1).astype(np.int32),
        time=time_ms,
        offsets=offsets,
        item=rows(samples),
        context=random.integers(1, 25, (samples, 2)).astype(np.int32),
        label=(random.random((samples, 3)) < [0.15, 0.03, 0.02]).astype(np.int8),
        start=start,
        end=end,
        sequences=sequences,
    )
    item = tuple(size + 1 for size in features)
    return drawn, Shape((users + 1, 9), item, (25, 25), tasks=3, actions=len(LENGTHS), length=max(LENGTHS))


def samples_per_second(network: Network, optimiser: torch.optim.Optimizer, loader: Loader, batch: int, seed: int) -> Pair:
    """(by wall, by processor time): one pass over `loader`, batch assembly included, as `models.training` does it."""
    random = np.random.default_rng(seed)
    weight = torch.ones(3)
    began, busy = time.perf_counter(), time.process_time()
    for part in loader.batches(batch, random.permutation(len(loader.requests.time)), (network.recipe.id_dropout, random)):
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(network.loss(part, weight)[0])
        optimiser.step()
    samples = len(loader.requests)
    return samples / (time.perf_counter() - began), samples / (time.process_time() - busy)


def milliseconds(network: Network, request: Requests, repeats: int) -> Pair:
    """Median (wall, processor) time to score one request from rows, batch assembly included, as the service does."""
    wall, busy = [], []
    for _ in range(repeats):
        began, spent = time.perf_counter(), time.process_time()
        predict(network, Loader(request), torch.device("cpu"))
        wall.append(1000 * (time.perf_counter() - began))
        busy.append(1000 * (time.process_time() - spent))
    return statistics.median(wall), statistics.median(busy)


def alone(requests: Requests) -> Requests:
    """The first request with the tokens that it reads and no others."""
    spans = list(zip(requests.start[0], requests.end[0], strict=True))
    sequences = Sequences(
        requests.sequences.users,
        requests.sequences.offsets,
        [t[s:e] for t, (s, e) in zip(requests.sequences.tokens, spans, strict=True)],
        [t[s:e] for t, (s, e) in zip(requests.sequences.times, spans, strict=True)],
    )
    one = requests.take(np.zeros(1, np.int64))
    return replace(one, start=np.zeros_like(one.start), end=one.end - one.start, sequences=sequences)


def main(
    items: Annotated[int, typer.Option(help="Rows of the item table.")] = 50_000,
    requests: Annotated[int, typer.Option(help="Requests a round, about ten samples each.")] = 4000,
    rounds: Annotated[int, typer.Option(help="Rounds; the median counts.")] = 5,
    batch: Annotated[int, typer.Option(help="Samples a batch.")] = 2048,
    threads: Annotated[int, typer.Option(help="Threads of torch.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the log and of the weights.")] = 1,
    write: Annotated[bool, typer.Option(help="Write benchmarks/results/train.json.")] = True,
) -> None:
    """Time training and scoring of every model that has a short name on a drawn log."""
    torch.set_num_threads(threads)
    drawn, shape = draw(5000, items, requests, 10, seed)
    events = float((drawn.end - drawn.start).sum() / len(drawn.time))
    print(f"{len(drawn)} samples, {len(drawn) / len(drawn.time):.1f} a request, {events:.1f} events of history a request")
    loader, made, speeds = Loader(drawn), {}, {name: list[Pair]() for name in RECIPES}
    for name, recipe in RECIPES.items():
        torch.manual_seed(seed)
        network = Network(recipe, shape)
        made[name] = network.train(), optimiser_of(network, learning_rate=2e-3, embedding_decay=3e-2)
    for number in range(rounds + 1):  # round 0 warms up
        for name, (network, optimiser) in made.items():
            speed = samples_per_second(network, optimiser, loader, batch, seed + number)
            speeds[name] += [speed] if number else []
    result: dict[str, Any] = {}
    for name, (network, _) in made.items():
        wall, busy = (statistics.median(speed) for speed in zip(*speeds[name], strict=True))
        scoring = {n: milliseconds(network, alone(draw(5000, items, 1, n, seed)[0]), 50) for n in (200, 1000)}
        result[name] = {
            "samples_per_second": wall,
            "samples_per_processor_second": busy,
            "rounds": speeds[name],
            "score_one_request_ms": {str(n): {"wall": w, "processor": b} for n, (w, b) in scoring.items()},
        }
        print(f"{name}: {wall:,.0f} samples/s, {busy:,.0f} per processor second; one request of")
        for n, (w, b) in scoring.items():
            print(f"    {n} candidates: {w:.1f} ms, {b:.1f} of the processor")
    if write:
        RESULTS.mkdir(exist_ok=True)
        about = {
            "what": "python -m benchmarks.train",
            **machine.about(),
            "settings": {
                "items": items,
                "requests": requests,
                "rounds": rounds,
                "batch": batch,
                "threads": threads,
                "seed": seed,
            },
            "samples": len(drawn),
            "events_per_request": events,
            "recipes": {name: recipe.to_json() for name, recipe in RECIPES.items()},
            "results": result,
        }
        path = RESULTS / "train.json"
        path.write_text(json.dumps(about, indent=1) + "\n")
        print(path)


if __name__ == "__main__":
    typer.run(main)
