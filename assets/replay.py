"""The demo's traffic: the judged day's requests asked again over HTTP, each user's in the order that they came.

The service starts from the histories of the day before and is told of the judged day's actions as they become known, so it
knows at each request what was known then, and nothing later. What it answers goes to the prediction inbox like any other
traffic. A replay that is done again takes the place of the former one: its inbox files are removed first, also when the
former one was killed; which files those are is noted beside the answers as soon as the first one is there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from assets import lake, samples, served
from assets.asking import Asking
from assets.histories import write
from models.contract import Contract
from models.home import Home
from models.requests import Requests
from models.window import read_requests, read_sequences

CODE = ("assets/replay.py", "assets/served.py", "assets/asking.py")
REQUESTS = 2000
CONNECTIONS = 6
MOST = 1000
"""Items of one ranking and events of one telling, as the service takes them."""

Message = dict[str, Any]
Stream = list[tuple[str, Message]]
"""One user's calls, ("/rank" or "/events", message), in their order."""


@dataclass(frozen=True)
class Answer:
    """One ranking that was asked for; `error` is empty when it was given."""

    user: str
    time: int
    items: int
    request_id: str
    ms: float
    error: str


def replay(
    home: Home,
    contract: Contract,
    judged_day: str,
    bento: str,
    requests: int | None = REQUESTS,
    say: served.Say = lambda _: None,
) -> tuple[lake.Manifest, bool]:
    """Replay up to `requests` requests (whole users; None: all) of the judged day against `bento`; (manifest, whether it ran).

    Detail: requests, ok, events, p50_ms, p99_ms (of the rankings, as a client sees them, `CONNECTIONS` at a time), seconds,
    errors (the first few). Raises ValueError when the day has no request or none was answered, served.NotServed when the
    service does not start, lake.Missing and lake.Blocked when a partition may not be read.
    """
    target = home.partition("replay", judged_day)
    noted = target.with_name("inbox.json")
    former = lake.read(home, "replay", judged_day)
    incomplete = former is not None and former.detail["ok"] < former.detail["requests"]
    if incomplete or any(not (home.prediction_inbox / name).is_file() for name in _noted(noted)):
        target.unlink(missing_ok=True)  # refused rankings, or an inbox that is gone: to be done again, though nothing changed
    inputs = samples.window_inputs(home, contract, [judged_day]) | {"bento": bento, "requests": str(requests)}

    def make(path: Path) -> dict[str, Any]:
        for name in _noted(noted):
            (home.prediction_inbox / name).unlink(missing_ok=True)
        before = set(home.prediction_inbox.glob("*.jsonl"))

        def note(first: Answer) -> None:
            new = set(home.prediction_inbox.glob("*.jsonl")) - before
            lake.write_json(noted, sorted(p.name for p in new if first.request_id.encode() in p.read_bytes()))

        streams = conversations(home, contract, judged_day, requests)
        until = str(date.fromisoformat(judged_day) - timedelta(days=1))
        with served.start(home, bento, replay=True, until=until, say=say) as service:
            began = time.perf_counter()
            answers = converse(
                streams, lambda: httpx.Client(base_url=service.url, timeout=60, trust_env=False), CONNECTIONS, note
            )
            seconds = time.perf_counter() - began
        write(pa.Table.from_pylist([asdict(a) for a in answers]), path)
        return {"counts": {"requests": len(answers)}, "detail": _detail(streams, answers, seconds)}

    return lake.build(
        home, "replay", judged_day, target, make, inputs=inputs, code=lake.code_hash(*CODE), contract=contract.digest()
    )


def conversations(home: Home, contract: Contract, day: str, limit: int | None) -> list[Stream]:
    """The calls of each chosen user on `day`. Raises ValueError when there is no request.

    Whole users, drawn evenly and always alike, as many as have at most `limit` requests together (at least one user). An
    action is told once a later request could know it: at equal times the request comes first.
    """
    waits = max(round(3_600_000 * b.horizon_hours) for b in contract.behaviours.values())
    asking = Asking.of_days(home, contract, contract.history_days(contract.day_of(contract.day_start(day) - waits), day))
    asked = read_requests(home, contract, [day])
    if not len(asked.time):
        raise ValueError(f"samples of {day} hold no request to replay; choose a day on which something happened")
    known = read_sequences(home, contract, [day])
    users, counts = np.unique(asked.user[:, 0], return_counts=True)
    order = np.random.default_rng(0).permutation(len(users))
    within = len(users) if limit is None else max(1, int(np.searchsorted(np.cumsum(counts[order]), limit, side="right")))
    chosen = np.sort(users[order[:within]])
    calls: dict[int, list[tuple[int, int, Message]]] = {int(u): [] for u in chosen}
    for place in np.flatnonzero(np.isin(asked.user[:, 0], chosen)):
        for message in _rankings(asking, asked, int(place)):
            calls[int(asked.user[place, 0])].append((message["time"], 0, message))
    for action, name in enumerate(contract.actions):
        owner = np.repeat(known.users, np.diff(known.offsets[action]))
        hours = contract.behaviours[name].horizon_hours
        since = contract.wait_ms(hours, date.fromisoformat(day) - timedelta(days=hours // 24))
        kept = np.isin(owner, chosen) & (known.times[action] >= contract.day_start(day))
        for user, token, moment in zip(owner[kept], known.tokens[action][kept], known.times[action][kept], strict=True):
            event = asking.event(int(user), token, name, int(moment) - since)  # the door adds the wait
            calls[int(user)].append((int(moment), 1, event))
    return [list(_merged(sorted(own, key=lambda call: call[:2]))) for own in calls.values()]


def _rankings(asking: Asking, asked: Requests, place: int) -> Iterator[Message]:
    """Request `place` as messages of at most MOST items."""
    begin, end = int(asked.offsets[place]), int(asked.offsets[place + 1])
    for first in range(begin, end, MOST):
        rows = slice(first, min(first + MOST, end))
        yield asking.rank(asked.user[place], int(asked.time[place]), asked.item[rows], asked.context[rows])


def _merged(calls: list[tuple[int, int, Message]]) -> Iterator[tuple[str, Message]]:
    """Calls in their order, events that follow one another told together."""
    waiting: list[Message] = []
    for _, kind, message in calls:
        if waiting and (kind == 0 or len(waiting) == MOST):
            yield "/events", {"events": waiting}
            waiting = []
        if kind == 0:
            yield "/rank", message
        else:
            waiting.append(message)
    if waiting:
        yield "/events", {"events": waiting}


def converse(
    streams: list[Stream], connect: Callable[[], httpx.Client], connections: int, first: Callable[[Answer], None]
) -> list[Answer]:
    """Hold every user's conversation, `connections` users at a time; the rankings' answers by (user, time).

    `first` is called with the first ranking that is given, before any other call goes on through that connection. A refused
    telling ends its user's conversation: what follows would be ranked on another history than the day's.
    """
    waiting: SimpleQueue[Stream] = SimpleQueue()
    for stream in streams:
        waiting.put(stream)
    answers: list[Answer] = []
    lock = Lock()

    def work() -> None:
        with connect() as client:
            while True:
                try:
                    stream = waiting.get_nowait()
                except Empty:
                    return
                for answer in _hold(client, stream):
                    with lock:
                        if not answer.error and all(a.error for a in answers):
                            first(answer)
                        answers.append(answer)

    with ThreadPoolExecutor(connections) as pool:
        for done in [pool.submit(work) for _ in range(connections)]:
            done.result()
    return sorted(answers, key=lambda a: (a.user, a.time, a.request_id))


def _hold(client: httpx.Client, stream: Stream) -> Iterator[Answer]:
    refused = ""
    for path, message in stream:
        if path == "/events":
            refused = refused or _call(client, path, message)[1]
            continue
        began = time.perf_counter()
        answer, error = ({}, refused) if refused else _call(client, path, message)
        ms = 1000 * (time.perf_counter() - began)
        yield Answer(
            str(message["user_id"]), message["time"], len(message["item_ids"]), answer.get("request_id", ""), ms, error
        )


def _call(client: httpx.Client, path: str, message: Message) -> tuple[Message, str]:
    """(the answer, nothing) or (nothing, why there is none)."""
    try:
        response = client.post(path, json=message)
    except httpx.TransportError as error:
        return {}, f"{path}: no answer ({error!r})"
    return (
        (response.json(), "") if response.status_code == 200 else ({}, f"{path}: {response.status_code} {response.text[:200]}")
    )


def _detail(streams: list[Stream], answers: list[Answer], seconds: float) -> dict[str, Any]:
    good = [a.ms for a in answers if not a.error]
    errors = sorted({a.error for a in answers if a.error})[:3]
    if not good:
        raise ValueError(f"none of {len(answers)} rankings was answered; the first errors: {'; '.join(errors)}")
    p50, p99 = np.percentile(good, [50, 99])
    return {
        "requests": len(answers),
        "ok": len(good),
        "users": len(streams),
        "events": sum(len(m["events"]) for stream in streams for path, m in stream if path == "/events"),
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "connections": CONNECTIONS,
        "seconds": round(seconds, 3),
        "errors": errors,
    }


def _noted(path: Path) -> list[str]:
    """Names of the inbox files of the former replay of this day."""
    names: list[str] = json.loads(path.read_text()) if path.is_file() else []
    return names
