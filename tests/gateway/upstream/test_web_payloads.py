"""What is sent to grok.com: bodies, frames, headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.errors import CredentialRejected, RequestRejected
from gateway.upstream.requests import Account, WebTarget
from gateway.upstream.web import payloads
from gateway.upstream.web.headers import Profile
from gateway.upstream.web.settings import WebSettings

TARGET = WebTarget("grok-4-1-thinking-1129", "MODEL_MODE_FAST", "fast")


def rest(settings: WebSettings, prompt: str = "What is a tide?", files: Any = ()) -> Any:
    return json.loads(payloads.rest_body(prompt, files, TARGET, settings))


def test_it_writes_the_model_name_form_exactly() -> None:
    settings = WebSettings(rest_form="model_name", disable_memory=False)
    assert rest(settings, files=["file-meta-1"]) == {
        "temporary": True,
        "modelName": "grok-4-1-thinking-1129",
        "modelMode": "MODEL_MODE_FAST",
        "message": "What is a tide?",
        "fileAttachments": ["file-meta-1"],
        "imageAttachments": [],
        "disableSearch": False,
        "enableImageGeneration": True,
        "returnImageBytes": False,
        "returnRawGrokInXaiRequest": False,
        "enableImageStreaming": True,
        "imageGenerationCount": 2,
        "forceConcise": False,
        "toolOverrides": {},
        "enableSideBySide": True,
        "sendFinalMetadata": True,
        "isReasoning": False,
        "disableTextFollowUps": False,
        "disableMemory": False,
        "forceSideBySide": False,
        "isAsyncChat": False,
        "disableSelfHarmShortCircuit": False,
        "responseMetadata": {
            "modelConfigOverride": {"modelMap": {}},
            "requestModelDetails": {"modelId": "grok-4-1-thinking-1129"},
        },
    }


def test_it_writes_the_mode_id_form_without_the_fields_it_replaces() -> None:
    body = rest(WebSettings())
    assert body["modeId"] == "fast"
    assert body["collectionIds"] == body["disabledConnectorIds"] == []
    assert body["responseMetadata"] == {}
    assert body["disableMemory"] is True
    assert set(body["toolOverrides"].values()) == {False}
    assert not {"modelName", "modelMode", "isReasoning"} & body.keys()


def test_it_does_not_mix_up_cached_forms() -> None:
    kept = rest(WebSettings(temporary=False))
    private = rest(WebSettings(temporary=True))
    assert (kept["temporary"], private["temporary"]) == (False, True)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.lists(st.text("abc-1", min_size=1)))
def test_it_carries_any_text_and_ids_unchanged(prompt: str, files: list[str]) -> None:
    body = rest(WebSettings(), prompt, files)
    assert (body["message"], body["fileAttachments"]) == (prompt, files)
    frame = json.loads(payloads.message_frame("s", 1, "m", prompt, files))
    chunks = frame["event"]["item"]["x_grok"]["input_chunks"]
    assert chunks[-1] == {"text": {"text": prompt}}
    assert len(chunks) == len(files) + 1


def test_it_refuses_half_a_surrogate_pair() -> None:
    with pytest.raises(RequestRejected):
        payloads.rest_body("\ud800", (), TARGET, WebSettings())
    with pytest.raises(RequestRejected):
        payloads.message_frame("s", 1, "m", "\ud800", ())


def test_it_opens_a_session_as_documented() -> None:
    frame = json.loads(payloads.session_frame("evt_init_1", "fast", WebSettings()))
    assert frame == {
        "event": {
            "type": "session.create",
            "event_id": "evt_init_1",
            "session": {
                "model": "fast",
                "x_grok": {
                    "protocol_capabilities": ["conversation_attached", "custom_methods_v1"],
                    "use_chunk": True,
                    "enable_side_by_side": True,
                    "force_side_by_side": False,
                    "enable_image_generation": True,
                    "image_generation_count": 2,
                    "disable_text_follow_ups": False,
                    "disable_artifact": True,
                    "force_concise": False,
                    "keep_context": False,
                    "is_temporary": True,
                    "disable_memory": True,
                },
            },
        }
    }


def test_it_names_attachments_three_times_or_not_at_all() -> None:
    frame = json.loads(payloads.message_frame("conv-1", 179, "m-1", "Hi", ["f-1"]))
    assert frame == {
        "session_id": "conv-1",
        "event": {
            "type": "conversation.item.create",
            "event_id": "evt_msg_179",
            "file_attachment_ids": ["f-1"],
            "item": {
                "type": "message",
                "role": "user",
                "file_attachment_ids": ["f-1"],
                "x_grok": {
                    "client_message_id": "m-1",
                    "input_chunks": [
                        {"mention": {"target": {"file_mention": {"file_id": "f-1"}}}},
                        {"text": {"text": "Hi"}},
                    ],
                },
            },
        },
    }
    bare = payloads.message_frame("conv-1", 179, "m-1", "Hi", ())
    assert b"file_attachment_ids" not in bare


def test_it_asks_for_the_answer_and_pings() -> None:
    assert json.loads(payloads.response_frame("conv-1", 179)) == {
        "session_id": "conv-1",
        "event": {"type": "response.create", "event_id": "evt_resp_179"},
    }
    assert json.loads(payloads.ping_frame(179)) == {
        "event": {"type": "ping", "event_id": "evt_hb_179"}
    }


@pytest.mark.parametrize(
    ("secret", "cookie"),
    [
        ("tok", "sso=tok; sso-rw=tok"),
        ("sso=tok", "sso=tok; sso-rw=tok"),
        ("sso=t;sso-rw=u", "sso=t; sso-rw=u"),
        ("sso-rw=u; sso=t", "sso=t; sso-rw=u"),
        ("dG9r==", "sso=dG9r==; sso-rw=dG9r=="),
        ("tok; path=/", "sso=tok; sso-rw=tok"),
    ],
)
def test_it_makes_the_cookie_pair(secret: str, cookie: str) -> None:
    assert Profile(WebSettings()).cookie(Account(secret)) == cookie


@pytest.mark.parametrize("secret", ["", "sso=", "sso-rw=u", "a\r\nX: y", "tök"])
def test_it_rejects_a_secret_that_cannot_be_a_cookie(secret: str) -> None:
    with pytest.raises(CredentialRejected):
        Profile(WebSettings()).cookie(Account(secret))


def test_it_keeps_only_the_cloudflare_cookies_that_are_the_operators() -> None:
    settings = WebSettings(
        cf_clearance="clear", cf_cookies="__cf_bm=a; tracker=x; _cfuvid=b; cf_chl_rc_m=c; sso=evil"
    )
    cookie = Profile(settings).cookie(Account("tok"), "uid-1")
    assert cookie == (
        "sso=tok; sso-rw=tok; cf_clearance=clear; __cf_bm=a; _cfuvid=b; cf_chl_rc_m=c;"
        " x-userid=uid-1"
    )


def test_it_sends_no_header_the_operator_did_not_set() -> None:
    headers = Profile(WebSettings()).json(Account("tok"), "r-1")
    assert headers == {
        "Accept": "*/*",
        "Content-Type": "application/json",
        "Origin": "https://grok.com",
        "Referer": "https://grok.com/",
        "Cookie": "sso=tok; sso-rw=tok",
        "x-xai-request-id": "r-1",
    }


def test_it_sends_the_operators_own_values() -> None:
    profile = Profile(WebSettings(user_agent="Agent/1\r\nX: y", statsig_id="sig"))
    headers = profile.media_json(Account("tok"), "r-1")
    assert headers["User-Agent"] == "Agent/1X: y"
    assert headers["x-statsig-id"] == "sig"
    assert headers["Referer"] == "https://grok.com/imagine"


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://grok.com", "wss://grok.com/ws/mgw/?uid=u-1"),
        ("http://127.0.0.1:9/", "ws://127.0.0.1:9/ws/mgw/?uid=u-1"),
    ],
)
def test_it_derives_the_socket_address(base: str, url: str) -> None:
    assert Profile(WebSettings(base_url=base)).mgw_url("u-1") == url


def test_it_shows_no_secret_setting() -> None:
    settings = WebSettings(
        cf_clearance="s3cret", cf_cookies="s3cret", statsig_id="s3cret", proxy_url="s3cret"
    )
    assert "s3cret" not in repr(settings)
