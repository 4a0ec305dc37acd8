"""Who may open the picture socket, and by which way the proof may come."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.test import Client as Browser
from websockets.exceptions import InvalidStatus

from gateway import conf
from gateway.api.errors import translate
from gateway.consumers.sockets import Sockets
from gateway.relay import runtime
from gateway.relay.imagine_run import imagine_relay
from gateway.routing import socket_routes
from gateway.sandbox.serve import SandboxThread
from pool.keys import DisabledKey, ExpiredKey
from tests.gateway.consumers.live import PATH, LiveSockets
from tests.gateway.live import KEY, MemoryStore, record

BEARER = {"Authorization": f"Bearer {KEY}"}
ORIGIN = "http://localhost:8000"


@pytest.fixture
def gateway(sandbox: SandboxThread) -> Iterator[LiveSockets]:
    keys = {
        KEY: record(),
        "sk-disabled": record(id=2, is_active=False),
        "sk-expired": record(id=3, expires_at=1.0),
    }
    with LiveSockets(sandbox, keys=keys, settings={"app.api_key": "the-global-key"}) as running:
        yield running


@pytest.mark.parametrize(
    ("query", "headers", "offer", "chosen"),
    [
        (f"?api_key={KEY}", {}, (), None),
        (f"?x=1&api_key={KEY}&y=2", {}, (), None),
        ("?api_key=the-global-key", {}, (), None),
        (f"?api_key={KEY}", {"Origin": "https://elsewhere.example"}, (), None),
        ("", BEARER, (), None),
        ("", {"authorization": f"bearer {KEY}"}, (), None),
        ("", {}, ("grok2api.imagine", f"key.{KEY}"), "grok2api.imagine"),
        ("", {}, (f"key.{KEY}", "grok2api.imagine"), "grok2api.imagine"),
        (f"?api_key={KEY}", {}, ("grok2api.imagine",), "grok2api.imagine"),
        (f"?api_key={KEY}", {}, ("chat",), None),
    ],
)
def test_a_good_key_opens_whichever_way_it_comes(
    gateway: LiveSockets,
    query: str,
    headers: dict[str, str],
    offer: tuple[str, ...],
    chosen: str | None,
) -> None:
    with gateway.connect(query, headers=headers, offer=offer) as client:
        assert client.socket.subprotocol == chosen
        client.say("ping")
        assert client.hear() == {"type": "pong"}


@pytest.mark.parametrize(
    ("query", "headers", "offer"),
    [
        ("", {}, ()),
        ("?api_key=", {}, ()),
        ("?api_key=sk-wrong", {}, ()),
        ("?api_key=sk-disabled", {}, ()),
        ("?api_key=sk-expired", {}, ()),
        ("?API_KEY=" + KEY, {}, ()),
        ("?api_key=%ff%00", {}, ()),
        ("?api_key=sk-wrong", BEARER, ()),
        ("?api_key=sk-wrong&api_key=" + KEY, {}, ()),
        ("", {"Authorization": "Bearer sk-wrong"}, ()),
        ("", {"Authorization": f"Basic {KEY}"}, ()),
        ("", {"Authorization": ""}, ()),
        ("", {}, ("grok2api.imagine",)),
        ("", {}, ("grok2api.imagine", "key.sk-wrong")),
        ("", {}, (KEY,)),
        ("", {"Cookie": "sessionid=made-up"}, ()),
        ("", {"Cookie": "sessionid=made-up", "Origin": "https://elsewhere.example"}, ()),
    ],
)
def test_what_is_no_good_key_is_refused_before_anything_is_accepted(
    gateway: LiveSockets, query: str, headers: dict[str, str], offer: tuple[str, ...]
) -> None:
    client = gateway.connect(query, headers=headers, offer=offer)
    with pytest.raises(InvalidStatus) as refused, client:
        pass
    assert refused.value.response.status_code == 403
    assert gateway.sockets.open == 0


def test_other_addresses_are_refused(gateway: LiveSockets) -> None:
    for path in ("/", "/v1/chat/completions", PATH + "/", PATH + "x", "/x" + PATH):
        client = gateway.connect()
        client.url = client.url.replace(PATH, path)
        with pytest.raises(InvalidStatus) as refused, client:
            pass
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("reason", [DisabledKey, ExpiredKey])
def test_reasons_stay_inside(gateway: LiveSockets, reason: type[Exception]) -> None:
    """Which keys exist is nobody's business: every refusal looks the same."""
    name = "sk-disabled" if reason is DisabledKey else "sk-expired"
    bodies = set()
    for key in (name, "sk-wrong"):
        with pytest.raises(InvalidStatus) as refused, gateway.connect(f"?api_key={key}"):
            pass
        bodies.add(bytes(refused.value.response.body or b""))
    assert len(bodies) == 1


class Site:
    """The socket's routes without a server, for tests that need the database."""

    def __init__(self) -> None:
        gateway = runtime.Runtime()
        self.runtime = gateway
        self.sockets = Sockets(check_every=0.01)
        self.sockets.serve(imagine_relay(gateway, translate), gateway.keys)
        self.routes = socket_routes(self.sockets)

    def visit(self, cookie: str, **headers: str) -> WebsocketCommunicator:
        named = {"Host": "localhost:8000", "Origin": ORIGIN, "Cookie": f"sessionid={cookie}"}
        pairs = [
            (name.lower().encode(), value.encode())
            for name, value in (named | headers).items()
            if value
        ]
        return WebsocketCommunicator(self.routes, PATH, headers=pairs)


async def signed_in(name: str, **rights: bool) -> tuple[User, str]:
    def sign_in() -> tuple[User, str]:
        user = User.objects.create(username=name, **rights)
        browser = Browser()
        browser.force_login(user)
        return user, browser.cookies["sessionid"].value

    return await sync_to_async(sign_in)()


@pytest.fixture
async def site(tmp_path: Any) -> Any:
    conf.live.load(tmp_path, {}, MemoryStore({}))
    found = Site()
    yield found
    await found.sockets.aclose()
    await found.runtime.transports.aclose()
    found.runtime.abandon()


@pytest.mark.django_db(transaction=True)
async def test_a_staff_session_opens_it_from_our_own_pages(site: Site) -> None:
    _, cookie = await signed_in("operator", is_staff=True)
    visit = site.visit(cookie)
    assert await visit.connect() == (True, None)
    await visit.send_to(text_data='{"type":"ping"}')
    assert json.loads(await visit.receive_from()) == {"type": "pong"}
    await visit.disconnect()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://localhost"},
        {"Origin": "http://localhost:8001"},
        {"Origin": "https://localhost:8000"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:8000.evil.example"},
        {"Origin": "http://evil.example", "Host": "evil.example"},
        {"Host": ""},
    ],
)
async def test_a_page_from_elsewhere_cannot_use_the_session(
    site: Site, headers: dict[str, str]
) -> None:
    _, cookie = await signed_in("operator", is_staff=True)
    visit = site.visit(cookie, **headers)
    assert (await visit.connect())[0] is False


@pytest.mark.django_db(transaction=True)
async def test_an_origin_that_the_operator_trusts_may(site: Site, settings: Any) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://panel.example"]
    _, cookie = await signed_in("operator", is_staff=True)
    visit = site.visit(cookie, Origin="https://panel.example")
    assert (await visit.connect())[0] is True
    await visit.disconnect()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rights", [{"is_staff": False}, {"is_staff": True, "is_active": False}])
async def test_a_session_of_anybody_else_does_not_open_it(
    site: Site, rights: dict[str, bool]
) -> None:
    _, cookie = await signed_in("somebody", **rights)
    assert (await site.visit(cookie).connect())[0] is False
    assert (await site.visit("").connect())[0] is False


@pytest.mark.django_db(transaction=True)
async def test_a_user_who_is_staff_no_longer_is_sent_away(site: Site) -> None:
    user, cookie = await signed_in("operator", is_staff=True)
    visit = site.visit(cookie)
    assert (await visit.connect())[0] is True
    await sync_to_async(User.objects.filter(pk=user.pk).update)(is_staff=False)
    error = json.loads(await visit.receive_from(timeout=5))
    assert error["code"] == "invalid_api_key"
    assert (await visit.receive_output(5))["code"] == 1008
    await visit.wait()
