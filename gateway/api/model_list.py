"""``GET /v1/models`` and ``GET /v1/models/{id}`` (http-contract 5.1)."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Router

from gateway.api.errors import shown
from gateway.catalog import Model
from gateway.relay import runtime
from gateway.relay.chat import web_form
from gateway.relay.lanes import lanes_for
from gateway.wire.errors import ApiError
from pool.keys import KeyRecord

router = Router(tags=["models"])
PUBLISHED = 1_735_689_600
"""A stable ``created`` (2025-01-01 UTC): clients cache by it."""


@router.get("/models", url_name="models")
async def list_models(request: HttpRequest, available: bool = False) -> HttpResponse:
    """All models, or with ``?available=true`` those the pool can serve now."""
    models = [
        describe(model)
        for model in runtime.current().catalog.listing()
        if _allowed(request.auth, model.id)  # type: ignore[attr-defined]
        and (not available or is_available(model))
    ]
    return _json({"object": "list", "data": models})


@router.get("/models/{path:model_id}", url_name="model")
async def get_model(request: HttpRequest, model_id: str) -> HttpResponse:
    model = runtime.current().catalog.find(model_id)
    if model is None or not _allowed(request.auth, model_id):  # type: ignore[attr-defined]
        raise ApiError(
            404,
            f"There is no model {shown(model_id)}.",
            type_="not_found_error",
            code="model_not_found",
            param="model",
        )
    return _json(describe(model) | {"id": model_id})


def describe(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "model",
        "created": PUBLISHED,
        "owned_by": model.owned_by,
        "display_name": model.display_name,
        "description": model.description,
    }


def is_available(model: Model) -> bool:
    gateway = runtime.current()
    config = gateway.config()
    return gateway.pool.usable_now(lanes_for(model, config.pool.policy, web_form(config)))


def _allowed(key: KeyRecord, model_id: str) -> bool:
    return key.allowed_models is None or model_id in key.allowed_models


def _json(value: dict[str, Any]) -> HttpResponse:
    return HttpResponse(json.dumps(value), content_type="application/json")
