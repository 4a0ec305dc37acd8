"""Whose session it is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.upstream.errors import CredentialRejected, UpstreamFailed
from gateway.upstream.web.session import Identity, is_uuid, parse_identity

UID = "11111111-2222-4333-8444-555555555555"


@pytest.mark.parametrize(
    "reply",
    [
        {"status": "authenticated", "session": {"userId": UID}},
        {"user": {"id": UID}},
        {"user": {"userId": UID}},
        {"user": {"sub": UID}},
        {"id": UID},
        {"userId": UID},
        {"sub": UID},
        {"session": {"userId": " "}, "user": {"id": ""}, "sub": UID},
        {"session": None, "user": 3, "sub": UID},
    ],
)
def test_it_finds_the_user_wherever_it_is(reply: dict[str, Any]) -> None:
    assert parse_identity(reply).user_id == UID


def test_it_reads_email_and_team() -> None:
    reply = {"session": {"userId": UID, "email": "op@example.org", "organizationId": "org-1"}}
    assert parse_identity(reply) == Identity(UID, "op@example.org", "org-1")
    assert "op@example.org" not in repr(parse_identity(reply))


@pytest.mark.parametrize(("status", "row"), [("unauthenticated", 1), ("Blocked", 2)])
def test_it_judges_the_status_before_the_identity(status: str, row: int) -> None:
    with pytest.raises(CredentialRejected) as raised:
        parse_identity({"status": status, "session": {"userId": UID}})
    assert raised.value.row == row


def test_it_does_not_retire_for_a_reply_that_says_nothing() -> None:
    with pytest.raises(UpstreamFailed):
        parse_identity({"hello": "world"})
    assert parse_identity({"status": "authenticated"}).user_id == ""
    assert parse_identity({"user": {"email": "op@example.org"}}).user_id == ""


@pytest.mark.parametrize("value", ["", "user-1", UID[:-1], "{" + UID + "}", UID.replace("-", "")])
def test_it_takes_only_a_plain_uuid_for_the_socket(value: str) -> None:
    assert not is_uuid(value)
    assert is_uuid(UID)
    assert is_uuid("ABCDEF00-2222-4333-8444-555555555555")
