"""Who may call ``/v1``: every refusal is a 401 in OpenAI's envelope."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.live import KEY, LiveGateway, record

DISABLED = "sk-disabled-00000000000000000000000000000000"
EXPIRED = "sk-expired-000000000000000000000000000000000"
LIMITED = "sk-limited-000000000000000000000000000000000"
ROUTES = [
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/grok-4"),
]
REFUSED = {
    "no header": None,
    "wrong key": "Bearer sk-wrong",
    "disabled": f"Bearer {DISABLED}",
    "expired": f"Bearer {EXPIRED}",
    "empty": "Bearer",
    "other scheme": f"Basic {KEY}",
    "no scheme": KEY,
    "not ASCII": "Bearer sk-ключ-键",
    "very long": "Bearer sk-" + "x" * 10_000,
    "SQL": "Bearer ' OR '1'='1",
    "two keys": f"Bearer {KEY} {KEY}",
}


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    keys = {
        KEY: record(),
        DISABLED: record(id=2, is_active=False),
        EXPIRED: record(id=3, expires_at=time.time() - 1),
        LIMITED: record(id=4, allowed_models=frozenset({"grok-3"})),
    }
    with LiveGateway(sandbox, keys=keys) as running:
        yield running


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses(gateway: LiveGateway, method: str, path: str, case: str) -> None:
    header = REFUSED[case]
    headers = [] if header is None else [(b"Authorization", header.encode())]
    with gateway.client() as client:
        del client.headers["Authorization"]
        response = client.request(method, path, headers=headers, json={})

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_case_insensitive(gateway: LiveGateway, scheme: str) -> None:
    with gateway.client() as client:
        response = client.get("/v1/models", headers={"Authorization": f"{scheme} {KEY}"})

    assert response.status_code == 200


def test_without_any_key_nothing_is_open(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, keys={}) as gateway:
        assert gateway.ask().status_code == 401


def test_the_configured_global_key_opens(sandbox: SandboxThread) -> None:
    settings = {"app.api_key": "my-global-key"}
    with LiveGateway(sandbox, settings=settings, keys={}) as gateway, gateway.client() as client:
        right = client.get("/v1/models", headers={"Authorization": "Bearer my-global-key"})
        wrong = client.get("/v1/models", headers={"Authorization": "Bearer my-global-kez"})

    assert (right.status_code, wrong.status_code) == (200, 401)


def test_a_key_sees_and_uses_only_its_models(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        client.headers["Authorization"] = f"Bearer {LIMITED}"
        listed = client.get("/v1/models").json()["data"]
        body = {"model": "grok-4", "messages": [{"role": "user", "content": "Hello"}]}
        refused = client.post("/v1/chat/completions", json=body)
        hidden = client.get("/v1/models/grok-4")
        allowed = client.post("/v1/chat/completions", json=body | {"model": "grok-3"})

    assert [model["id"] for model in listed] == ["grok-3"]
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert hidden.status_code == 404
    assert allowed.status_code == 200
