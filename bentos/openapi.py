"""The service's own OpenAPI, generated from its msgspec schemas: BentoML's does not see routes of a mounted app."""

from __future__ import annotations

from typing import Any

import msgspec

from bentos.messages import EventsRequest, EventsResponse, RankRequest, RankResponse

ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"field": {"type": "string"}, "reason": {"type": "string"}}}},
}


def document(model: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a service of `model`."""
    messages = (RankRequest, RankResponse, EventsRequest, EventsResponse)
    schemas, components = msgspec.json.schema_components(messages, ref_template="#/components/schemas/{name}")
    rank, ranked, events, taken = schemas
    return {
        "openapi": "3.1.0",
        "info": {"title": "DTRN ranking service", "version": model},
        "paths": {
            "/rank": {"post": _operation("Rank items for a user", rank, ranked)},
            "/events": {"post": _operation("Tell what users just did", events, taken)},
            "/model": {
                "get": {"summary": "The model and where it comes from", "responses": {"200": {"description": "lineage"}}}
            },
        },
        "components": {"schemas": components | {"Error": ERROR}},
    }


def _operation(summary: str, request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content(request)},
        "responses": {
            "200": {"description": "done", "content": content(response)},
            "400": {"description": "refused: field and reason", "content": content({"$ref": "#/components/schemas/Error"})},
        },
    }
