"""Every refusal of every route has OpenAI's shape, whatever it was that went wrong."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.sandbox.serve import SandboxThread
from tests.gateway.api.reading import error_of
from tests.gateway.live import LiveGateway

ROUTES = {
    "/v1/chat/completions": ("POST",),
    "/v1/models": ("GET",),
    "/v1/models/grok-4": ("GET",),
}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WRONG = [(m, path) for path, right in ROUTES.items() for m in METHODS if m not in right]
PROBES = ("/health", "/livez", "/readyz")


@pytest.fixture
def stranger(gateway: LiveGateway) -> Iterator[httpx.Client]:
    with gateway.client() as client:
        del client.headers["Authorization"]
        yield client


@pytest.mark.parametrize(
    ("method", "path"), [(method, path) for path, right in ROUTES.items() for method in right]
)
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 1}'])
def test_without_a_key_nothing_else_is_looked_at(
    stranger: httpx.Client, method: str, path: str, content: bytes
) -> None:
    error = error_of(stranger.request(method, path, content=content), 401)

    assert (error["type"], error["code"], error["param"]) == (
        "authentication_error",
        "invalid_api_key",
        None,
    )


@pytest.mark.parametrize(("method", "path"), WRONG)
@pytest.mark.parametrize("content", [b"", b"{"])
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    client: httpx.Client, stranger: httpx.Client, method: str, path: str, content: bytes
) -> None:
    for sender in (client, stranger):
        response = sender.request(method, path, content=content)

        error = error_of(response, 405)
        assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")
        assert response.headers["allow"] == ", ".join(ROUTES[path])


@pytest.mark.parametrize("path", PROBES)
def test_a_probe_takes_no_post(stranger: httpx.Client, path: str) -> None:
    assert error_of(stranger.post(path), 405)["code"] == "method_not_allowed"
    assert stranger.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/nothing"])
def test_a_head_request_has_a_status_and_no_body(client: httpx.Client, path: str) -> None:
    response = client.head(path)

    assert response.status_code in {404, 405}
    assert response.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/v1/",
        "/v1/nothing",
        "/v1/chat",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "/v1//models",
        "/v1/models/",
        "/v1/%00",
        "/v1/docs",
        "/v1/openapi.json",
        "/v1/" + "x" * 5000,
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_404(
    client: httpx.Client, stranger: httpx.Client, method: str, path: str
) -> None:
    for sender in (client, stranger):
        error = error_of(sender.request(method, path, content=b"{"), 404)
        assert (error["type"], error["code"]) == ("not_found_error", "not_found")


@pytest.mark.parametrize(
    "name", ["gpt-4", "grok-4/", "a/b/c", "%E4%BD%A0", "%ff", "..", "x" * 3000, "grok-4%20"]
)
def test_an_unknown_model_is_a_404_that_does_not_repeat_it_at_length(
    client: httpx.Client, name: str
) -> None:
    error = error_of(client.get(f"/v1/models/{name}"), 404)

    assert error["type"] == "not_found_error"


def test_a_wrong_query_is_named(client: httpx.Client) -> None:
    error = error_of(client.get("/v1/models?available=maybe"), 400)

    assert (error["code"], error["param"]) == ("bool_parsing", "query.available")


@pytest.mark.parametrize("query", ["", "?available=false", "?surprise=1&available=0"])
def test_a_listing_is_whole_unless_only_the_available_is_wanted(
    client: httpx.Client, query: str
) -> None:
    listed = client.get(f"/v1/models{query}").json()["data"]

    assert {model["object"] for model in listed} == {"model"}
    assert {"grok-imagine-1.0", "grok-4-heavy", "gpt-4o"} <= {model["id"] for model in listed}
    assert len({model["id"] for model in listed}) == len(listed)


def test_one_model_looks_as_it_does_in_the_listing(client: httpx.Client) -> None:
    for model in client.get("/v1/models").json()["data"]:
        assert client.get(f"/v1/models/{model['id']}").json() == model


def test_a_refusal_carries_cors_headers_too(stranger: httpx.Client) -> None:
    """Without them a page's script could not read what went wrong."""
    for response in (
        stranger.get("/v1/models", headers={"Origin": "https://app.test"}),
        stranger.get("/v1/nothing", headers={"Origin": "https://app.test"}),
        stranger.post("/v1/chat/completions", content=b" " * 13_000_000),
    ):
        assert response.status_code in {401, 404, 413}
        assert response.headers["access-control-allow-origin"] == "*"


def test_an_answer_that_depends_on_the_origin_says_so(sandbox: SandboxThread) -> None:
    """A shared cache must not give one origin's answer to another."""
    settings = {"server.cors_origins": ["https://app.test"]}
    with LiveGateway(sandbox, settings=settings) as gateway, gateway.client() as client:
        for origin in ("https://app.test", "https://evil.test"):
            headers = {"Origin": origin}
            assert client.get("/v1/models", headers=headers).headers["vary"] == "Origin"
            preflight = client.options("/v1/models", headers=headers)
            assert preflight.headers["vary"] == "Origin"
            allowed = "access-control-allow-headers" in preflight.headers
            assert allowed is (origin == "https://app.test")
        assert "access-control-allow-origin" not in client.get("/v1/models").headers
