"""The hot endpoints as one Starlette app: bytes to message, message to answer, refusal to 400. No rule of ranking is here.

Scoring runs on the event loop: it is bound to the processor, and one request at a time keeps histories free of locks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bentos.messages import MOST_BYTES, EventsRequest, RankRequest, Refused, decode
from bentos.openapi import document
from bentos.ranking import Ranking

Endpoint = Callable[[Request], Awaitable[Response]]

ENCODER = msgspec.json.Encoder()
RANK = msgspec.json.Decoder(RankRequest)
EVENTS = msgspec.json.Decoder(EventsRequest)


def application() -> Starlette:
    """The app; `app.state.ranking` and `app.state.lineage` are set before the first request."""
    routes = [
        Route("/rank", _refusing(rank), methods=["POST"]),
        Route("/events", _refusing(events), methods=["POST"]),
        Route("/model", model, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
    ]
    return Starlette(routes=routes)


async def rank(request: Request) -> Response:
    ranking: Ranking = request.app.state.ranking
    return _answer(ranking.rank(decode(await _body(request), RANK)))


async def events(request: Request) -> Response:
    ranking: Ranking = request.app.state.ranking
    return _answer(ranking.tell(decode(await _body(request), EVENTS)))


async def model(request: Request) -> Response:
    ranking: Ranking = request.app.state.ranking
    clock = {"now": ranking.clock.now(), "says": ranking.clock.says}
    told = msgspec.json.format(ENCODER.encode({**request.app.state.lineage, "clock": clock}), indent=1)  # people read it
    return Response(told, media_type="application/json")


async def openapi(request: Request) -> Response:
    return _answer(document(request.app.state.lineage["model"]))


def _refusing(endpoint: Endpoint) -> Endpoint:
    async def refusing(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refused as error:
            return _answer({"error": {"field": error.field, "reason": error.reason}}, 400)

    return refusing


async def _body(request: Request) -> bytes:
    """The body, at most MOST_BYTES of it. Asking for the type keeps web pages of other origins from posting here unasked."""
    kind = request.headers.get("content-type", "nothing")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Refused("content-type", f"is {kind!r}; send application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise Refused("body", f"is longer than {MOST_BYTES} bytes")
    return bytes(body)


def _answer(message: Any, status: int = 200) -> Response:
    return Response(ENCODER.encode(message), status, media_type="application/json")
