"""Models, health probes, CORS, and what is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.catalog import MODELS
from gateway.relay import runtime
from gateway.sandbox.serve import SandboxThread
from pool.entries import Quota
from tests.gateway.live import LiveGateway


@pytest.fixture(scope="module")
def gateway(sandbox: SandboxThread) -> Iterator[LiveGateway]:
    with LiveGateway(sandbox, settings={"models.aliases": {"smart": "grok-4"}}) as running:
        yield running


def test_models_are_the_catalogue_in_its_order(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        listing = client.get("/v1/models").json()

    assert listing["object"] == "list"
    ids = [model["id"] for model in listing["data"]]
    assert ids == [model.id for model in MODELS] + ["smart"]
    assert set(listing["data"][0]) == {
        "id", "object", "created", "owned_by", "display_name", "description",
    }  # fmt: skip


def test_available_models_are_those_the_pool_can_serve_now(gateway: LiveGateway) -> None:
    def available() -> set[str]:
        with gateway.client() as client:
            return {m["id"] for m in client.get("/v1/models?available=true").json()["data"]}

    before = available()
    entry = gateway.entry(1)
    kept = entry.quotas["auto"]

    def cool() -> None:
        entry.quotas["auto"] = Quota(0, cooling_until=9e12)
        gateway.runtime.pool.update(entry, entry)

    def warm() -> None:
        entry.quotas["auto"] = kept
        gateway.runtime.pool.update(entry, entry)

    gateway.inside(cool)
    during = available()
    gateway.inside(warm)

    assert "grok-4" in before
    assert "grok-4-heavy" not in before
    assert "grok-4" not in during
    assert "grok-3" in during


def test_an_alias_is_served_under_its_own_name(gateway: LiveGateway) -> None:
    answer = gateway.ask("smart", "FRAMES:1", stream=False).json()

    assert answer["model"] == "smart"


def test_the_models_of_api_x_ai_are_served_as_themselves(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["xai-ok-0000000000000001"]) as gateway:
        gateway.inside(lambda: gateway.runtime.catalog.set_discovered(["grok-4.7"]))
        sandbox.state.reset()
        response = gateway.ask("grok-4.7", "FRAMES:1", stream=False)
        with gateway.client() as client:
            listed = client.get("/v1/models/grok-4.7").json()

    assert response.status_code == 200
    assert sandbox.state.requests_to("/v1/chat/completions")[0].json()["model"] == "grok-4.7"
    assert listed["owned_by"] == "xai"


def test_discovery_asks_with_a_key_of_the_pool(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox, ["xai-ok-0000000000000001"]) as gateway:
        assert gateway.inside_async(gateway.runtime.discovery.ask) is True
        assert gateway.runtime.catalog.find("grok-4.7") is not None
        assert gateway.runtime.pool.open_leases == 0


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_probes_need_no_key_and_accept_any_host(gateway: LiveGateway, path: str) -> None:
    with gateway.client() as client:
        del client.headers["Authorization"]
        response = client.get(path, headers={"Host": "10.1.2.3"})

    assert response.status_code == 200


def test_health_keeps_the_shape_that_old_pages_read(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        body = client.get("/health").json()

    assert body["status"] == "healthy"
    assert body["service"] == "Grok2API"
    assert body["runtime"] != "cloudflare-workers"


def test_readiness_ends_when_draining_begins(sandbox: SandboxThread) -> None:
    with LiveGateway(sandbox) as gateway, gateway.client() as client:
        gateway.inside(runtime.begin_drain)
        assert client.get("/readyz").status_code == 503
        assert client.get("/livez").status_code == 200


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/models/", "/v1/chat/completions/"])
def test_unknown_paths_answer_in_the_envelope(gateway: LiveGateway, path: str) -> None:
    with gateway.client() as client:
        response = client.get(path)

    assert response.status_code == 404
    assert response.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_wrong_methods_answer_in_the_envelope(gateway: LiveGateway, method: str) -> None:
    with gateway.client() as client:
        response = client.request(method, "/v1/chat/completions")

    assert response.status_code == 405
    assert "POST" in response.headers["allow"]
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_pages_of_any_origin_may_call_but_never_with_cookies(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        preflight = client.options("/v1/chat/completions", headers={"Origin": "https://app.test"})
        answer = client.get("/v1/models", headers={"Origin": "https://app.test"})

    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    for response in (preflight, answer):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in response.headers


def test_origins_can_be_limited(sandbox: SandboxThread) -> None:
    settings = {"server.cors_origins": ["https://app.test"]}
    with LiveGateway(sandbox, settings=settings) as gateway, gateway.client() as client:
        right = client.get("/v1/models", headers={"Origin": "https://app.test"})
        wrong = client.get("/v1/models", headers={"Origin": "https://evil.test"})

    assert right.headers["access-control-allow-origin"] == "https://app.test"
    assert "access-control-allow-origin" not in wrong.headers
