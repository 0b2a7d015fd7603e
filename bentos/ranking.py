"""From a message to a ranking: raw keys into one `Requests`, scored by the very call that training and judging use.

Nothing is encoded here. Features that a request leaves out are those last seen with the item (user), told since or known
from training; context that it leaves out is derived from its time or missing. Letters as in `models.requests`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bentos import lines
from bentos.clock import Clock
from bentos.fields import feature_keys, id_keys
from bentos.messages import (
    EventsRequest,
    EventsResponse,
    Feature,
    Key,
    Past,
    RankRequest,
    RankResponse,
    Refused,
    Told,
    aligned,
    known,
)
from bentos.online import Event, OnlineHistories, resolved
from bentos.prediction_log import Prediction
from models.contract import Contract
from models.moment import derived_context
from models.requests import MASKED, NULL_KEY, Ints, Requests, Sequences
from models.vocabulary import Vocabulary

DAY_MS = 86_400_000


class Ranker(Protocol):
    """A loaded artifact (`models.artifact.NeuralRanker`)."""

    @property
    def name(self) -> str: ...
    @property
    def contract(self) -> Contract: ...
    @property
    def vocabulary(self) -> Vocabulary: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    def score(self, requests: Requests) -> NDArray[np.float64]: ...


class Ranking:
    """One model, the histories that it reads and the clock that it goes by.

    `weights` of the tasks in the combined score (a task left out weighs 0; none at all: all alike) · `replay`: whether
    a request may say what time it is · `log`: where rankings are written, None for nowhere.
    """

    def __init__(
        self,
        ranker: Ranker,
        tag: str,
        histories: OnlineHistories,
        clock: Clock,
        weights: dict[str, float],
        *,
        replay: bool,
        log: lines.Lines | None,
    ) -> None:
        self.ranker = ranker
        self.contract = ranker.contract
        self.tag = tag
        self.histories = histories
        self.clock = clock
        self.replay = replay
        self.log = log
        alike = dict.fromkeys(ranker.tasks, 1 / len(ranker.tasks))
        self.weights = {task: (weights or alike).get(task, 0.0) for task in ranker.tasks}

    def rank(self, request: RankRequest) -> RankResponse:
        """The items in the order of their combined score, equal ones as they came. Raises Refused."""
        if request.time is not None and not self.replay:
            raise Refused("time", "is only accepted by a service that was started for replay; leave it out")
        time = self.clock.now() if request.time is None else request.time
        requests = self.requests(request, resolved(self.contract, time))
        probability = self.ranker.score(requests)
        score = probability @ np.array(list(self.weights.values()))
        order = np.argsort(-score, kind="stable")
        request_id = uuid.uuid4().hex
        known = self.ranker.vocabulary.rows("item", requests.item[:, 0]) > 0
        unknown_user = bool(self.ranker.vocabulary.rows("user", requests.user[:, 0])[0] == 0)
        if self.log is not None:
            unknown = (unknown_user, int((~known).sum()))
            self.log.append(self._prediction(request_id, time, requests, probability, score, *unknown))
        return RankResponse(
            request_id,
            self.tag,
            [request.item_ids[place] for place in order],
            order.tolist(),
            score[order].tolist(),
            {task: probability[order, place].tolist() for place, task in enumerate(self.ranker.tasks)},
            unknown_user,
            [request.item_ids[place] for place in order if not known[place]],
        )

    def requests(self, request: RankRequest, time: int) -> Requests:
        """The one request as raw keys, its history strictly before `time` (epoch ms). Raises Refused."""
        contract, items = self.contract, len(request.item_ids)
        user, moment = id_keys(contract, "user", [request.user_id], "user_id"), np.array([time], np.int64)
        sequences = self._sequences(request, int(user[0]))
        since = np.array([contract.history_start(contract.day_of(time))], np.int64)
        start, end = sequences.span(user, moment, since, contract.lengths)
        return Requests(
            user=np.concatenate([user, self._user_features(request, user)])[None],
            time=moment,
            offsets=np.array([0, items], np.int64),
            item=self._items(request),
            context=self._context(request, moment),
            label=np.full((items, len(self.ranker.tasks)), MASKED, np.int8),
            start=start,
            end=end,
            sequences=sequences,
        )

    def tell(self, request: EventsRequest) -> EventsResponse:
        """Take all events, or none of them where one is wrong. Raises Refused."""
        now = self.clock.now()
        events = [self._event(f"events[{place}]", told, now) for place, told in enumerate(request.events)]
        accepted = sum(map(self.histories.tell, events))
        return EventsResponse(accepted, len(events) - accepted)

    def _event(self, field: str, told: Told, now: int) -> Event:
        known(f"{field}.behaviour", [told.behaviour], self.contract.actions)
        known(f"{field}.item_features", told.item_features, tuple(self.contract.item_features))
        time = now if told.time is None else told.time
        if not self.replay:  # a replay tells of the day after the service's own
            if time > now + DAY_MS:
                raise Refused(f"{field}.time", f"{time} is more than a day ahead of the service's clock, {now} (epoch ms)")
            if time < (oldest := self.contract.history_start(self.contract.day_of(now))):
                raise Refused(f"{field}.time", f"{time} is before any history reaches, {oldest} (epoch ms; seconds came?)")
        # Kept whole: what was last seen with the item is another answer after the next training.
        user = int(id_keys(self.contract, "user", [told.user_id], f"{field}.user_id")[0])
        item, *features = self._tokens([told.item_id], [told.item_features], field)[0].tolist()
        named = dict(zip(self.contract.item_columns[1:], features, strict=True))
        return Event(user, item, told.behaviour, time, named)

    def _sequences(self, request: RankRequest, user: int) -> Sequences:
        known("histories", request.histories, self.contract.actions)
        runs = self.histories.of(user)
        for name, past in request.histories.items():
            for place, event in enumerate(past):
                known(f"histories.{name}[{place}].item_features", event.item_features, tuple(self.contract.item_features))
            runs[self.contract.actions.index(name)] = self._given(name, past)
        users = [np.full(len(times), user, np.int64) for _, times in runs]
        return Sequences.from_events(users, [tokens for tokens, _ in runs], [times for _, times in runs])

    def _given(self, name: str, past: Sequence[Past]) -> tuple[Ints, Ints]:
        items, features = [event.item_id for event in past], [event.item_features for event in past]
        tokens = self._tokens(items, features, f"histories.{name}[]")
        times = [resolved(self.contract, event.time) for event in past]
        return tokens, np.array(times, np.int64)

    def _tokens(self, items: list[Key], given: Sequence[dict[str, Feature]], where: str) -> Ints:
        """(N, Fi) item keys with the features that are given, else those last seen with the item."""
        contract = self.contract
        out = self._last_seen(id_keys(contract, "item", items, f"{where}.item_id"))
        for row, features in enumerate(given):
            here = where.replace("[]", f"[{row}]")
            for name, value in features.items():
                _put(
                    out[row],
                    contract.item_columns,
                    name,
                    feature_keys(contract, name, [value], f"{here}.item_features.{name}")[0],
                )
        return out

    def _last_seen(self, ids: Ints) -> Ints:
        out = np.concatenate([ids[:, None], self.ranker.vocabulary.item_features(ids)], axis=1)
        items = ids.tolist()
        if told := self.histories.features(items):
            for row, item in enumerate(items):
                if item in told:
                    out[row, 1:] = told[item]
        return out

    def _items(self, request: RankRequest) -> Ints:
        contract = self.contract
        out = self._last_seen(id_keys(contract, "item", request.item_ids, "item_ids[]"))
        known("item_features", request.item_features, tuple(contract.item_features))
        for name, column in request.item_features.items():
            aligned(f"item_features.{name}", column, len(out))
            _put(out, contract.item_columns, name, feature_keys(contract, name, column, f"item_features.{name}[]"))
        return out

    def _user_features(self, request: RankRequest, user: Ints) -> Ints:
        known("user_features", request.user_features, tuple(self.contract.user_features))
        out: Ints = self.ranker.vocabulary.user_features(user)[0]
        for name, value in request.user_features.items():
            keys = feature_keys(self.contract, name, [value], f"user_features.{name}")[0]
            _put(out, self.contract.user_columns[1:], name, keys)
        return out

    def _context(self, request: RankRequest, moment: Ints) -> Ints:
        derived = self.contract.context.derived
        for name in request.context:
            if name in derived:
                raise Refused(f"context.{name}", "follows from the time of the request; leave it out")
        known("context", request.context, tuple(self.contract.context.columns))
        columns = self.contract.context_columns
        out = np.full((len(request.item_ids), len(columns)), NULL_KEY, np.int64)
        out[:, : len(derived)] = derived_context(self.contract, moment)
        for name, column in request.context.items():
            aligned(f"context.{name}", each := column if isinstance(column, list) else [column] * len(out), len(out))
            _put(out, columns, name, feature_keys(self.contract, name, each, f"context.{name}[]"))
        return out

    def _prediction(
        self,
        request_id: str,
        time: int,
        requests: Requests,
        probability: NDArray[np.float64],
        score: NDArray[np.float64],
        unknown_user: bool,
        unknown_items: int,
    ) -> Prediction:
        lengths = (requests.end - requests.start)[0].tolist()
        return Prediction(
            request_id,
            time,
            self.clock.wall(),
            self.tag,
            int(requests.user[0, 0]),
            requests.user[0, 1:].tolist(),
            requests.item[:, 0].tolist(),
            requests.item[:, 1:].tolist(),
            requests.context.tolist(),
            score.tolist(),
            {task: probability[:, place].tolist() for place, task in enumerate(self.ranker.tasks)},
            dict(zip(self.contract.actions, lengths, strict=True)),
            unknown_user,
            unknown_items,
        )


def _put(out: Ints, columns: tuple[str, ...], name: str, keys: Ints) -> None:
    """Write the keys of field `name` (…, its columns) into `out` (…, columns)."""
    begin = columns.index(name)
    out[..., begin : begin + keys.shape[-1]] = keys
