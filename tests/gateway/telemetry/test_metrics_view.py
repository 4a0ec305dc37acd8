"""Who may read the metrics, and how."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import Readings
from pool.keys import create_client_key
from tests.gateway.telemetry.samples import Scrape
from tests.gateway.telemetry.urls import Gateway

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.gateway.telemetry.urls")]
TOKEN = "metrics-tøken-1"


@pytest.fixture(autouse=True)
def running() -> Iterator[None]:
    waiting = iter(range(1, 100))
    Gateway.metrics = Metrics("1", Readings(queues={"ledger": lambda: next(waiting)}))
    Gateway.token = TOKEN
    yield
    Gateway.metrics, Gateway.token = None, ""


def bearer(token: str) -> dict[str, str]:
    """As a server hands it on: the bytes of the header, read as Latin-1."""
    return {"Authorization": f"Bearer {token.encode().decode('latin-1')}"}


def signed_in(*, is_staff: bool) -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_user("someone", is_staff=is_staff))
    return client


def test_an_admins_session_opens_them() -> None:
    answer = signed_in(is_staff=True).get("/metrics")

    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/plain; version=0.0.4")
    assert answer["Cache-Control"] == "no-store"
    assert Scrape(answer.content.decode()).get("grok2api_workers") == 1


def test_the_token_opens_them_without_a_look_at_the_database(
    django_assert_num_queries: object,
) -> None:
    with django_assert_num_queries(0):  # type: ignore[operator]
        answer = Client().get("/metrics", headers=bearer(TOKEN))

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {},
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN + "x"),
        bearer(TOKEN.upper()),
        {"Authorization": TOKEN.encode().decode("latin-1")},
        {"Authorization": "Basic bWV0cmljcy10b2tlbg=="},
        {"Authorization": "Bearer"},
        bearer("Ω"),
    ],
)
def test_anything_else_is_asked_to_sign_in(header: dict[str, str]) -> None:
    answer = Client().get("/metrics", headers=header)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == 'Bearer realm="metrics"'
    assert b"grok2api_" not in answer.content


def test_a_client_key_opens_nothing() -> None:
    _, clear = create_client_key("someone's")

    assert Client().get("/metrics", headers=bearer(clear)).status_code == 401


@pytest.mark.parametrize("given", ["", "x"])
def test_without_a_token_configured_only_admins_enter(given: str) -> None:
    Gateway.token = ""

    assert Client().get("/metrics", headers=bearer(given)).status_code == 401
    assert signed_in(is_staff=True).get("/metrics").status_code == 200


def test_who_is_signed_in_but_no_admin_is_refused() -> None:
    answer = signed_in(is_staff=False).get("/metrics")

    assert answer.status_code == 403
    assert b"grok2api_" not in answer.content


def test_an_admin_who_was_deactivated_is_asked_to_sign_in() -> None:
    client = signed_in(is_staff=True)
    get_user_model().objects.update(is_active=False)

    assert client.get("/metrics").status_code == 401


def test_a_wrong_token_takes_nothing_from_an_admins_session() -> None:
    assert signed_in(is_staff=True).get("/metrics", headers=bearer("x")).status_code == 200


def test_head_has_no_body_and_other_methods_no_place() -> None:
    head = Client().head("/metrics", headers=bearer(TOKEN))

    assert (head.status_code, head.content) == (200, b"")
    assert head["Content-Type"].startswith("text/plain")
    assert Client().post("/metrics", headers=bearer(TOKEN)).status_code == 405


def test_every_scrape_looks_anew() -> None:
    for depth in (1, 2):
        answer = Client().get("/metrics", headers=bearer(TOKEN))
        seen = Scrape(answer.content.decode())
        assert seen.get("grok2api_queue_depth", queue="ledger") == depth


def test_the_accept_header_chooses_the_format() -> None:
    accept = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    answer = Client().get("/metrics", headers={**bearer(TOKEN), **accept})

    assert answer["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.content.endswith(b"# EOF\n")


def test_before_the_gateway_runs_there_is_nothing_to_tell() -> None:
    Gateway.metrics = None

    assert Client().get("/metrics").status_code == 401
    assert Client().get("/metrics", headers=bearer(TOKEN)).status_code == 503
