"""Planted secrets travel through success and failure; no log record may hold one."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.sandbox.behaviours import BEHAVIOURS as UPSTREAM
from gateway.sandbox.behaviours import JSON
from gateway.sandbox.serve import SandboxThread
from tests.gateway.live import LiveGateway, record
from tests.gateway.protocols import PROTOCOLS

PLANTED = "pLaNtEdSeCrEt"
KEY = f"sk-{PLANTED}-client-key-00000000000000000000"
PROMPT = f"my password is {PLANTED}-prompt"
CLEARANCE = f"{PLANTED}-clearance"
BEHAVIOURS = [
    "limited", "expired", "blocked", "deadcred", "broke", "moderated", "badreq", "challenge",
    "empty403", "forbidden", "error500", "error503-gzip", "reset", "silent", "inband-limit",
    "inband-error", "midlimit", "cut", "garbageonly", "html",
]  # fmt: skip


class Recorder(logging.Handler):
    """Everything that any logger says, down to DEBUG, with arguments and tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        parts = [record.getMessage(), repr(record.args), repr(record.__dict__.get("extra"))]
        if record.exc_info and record.exc_info[1] is not None:
            parts += traceback.format_exception(record.exc_info[1])
        self.texts.append("\n".join(parts))


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    handler = Recorder()
    root = logging.getLogger()
    names = list(logging.root.manager.loggerDict)
    loggers = [root, *(logging.getLogger(name) for name in names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def credential(protocol: str, number: int = 1) -> str:
    prefix = "xai-" if protocol == "xai" else ""
    return f"{prefix}ok-{PLANTED}-credential-{number}"


def chat(prompt: str, *parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": prompt}, *parts]
    return {"model": "grok-4", "messages": [{"role": "user", "content": content}], **fields}


def bodies() -> list[Any]:
    """Requests that succeed, that upstream fails in every way, and that are wrong."""
    picture = {"type": "image_url", "image_url": {"url": f"http://10.0.0.1/{PLANTED}.png"}}
    failing = [f"{PROMPT} SANDBOX:{behaviour}" for behaviour in BEHAVIOURS]
    return [
        *(chat(prompt, stream=True) for prompt in failing),
        *(chat(prompt, stream=False) for prompt in failing if "silent" not in prompt),
        chat(PROMPT, picture),
        chat(PROMPT, model=PLANTED),
        chat(PROMPT, temperature=PLANTED),
        chat(PROMPT) | {"messages": [{"role": PLANTED, "content": PROMPT}]},
        PROMPT,
    ]


def drive(gateway: LiveGateway) -> None:
    with gateway.client() as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        for body in bodies():
            client.post("/v1/chat/completions", content=json.dumps(body))
        client.post("/v1/chat/completions", content=f'{{"{PROMPT}')
        client.headers["Authorization"] = f"Bearer sk-wrong-{PLANTED}"
        client.get("/v1/models")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_record_holds_a_secret(
    sandbox: SandboxThread, recorder: Recorder, protocol: str
) -> None:
    settings = PROTOCOLS[protocol] | {
        "grok.timeout": 1,
        "xai.timeout": 1,
        "grok.max_retry": 0,
        "grok.cf_clearance": CLEARANCE,
        "grok.user_agent": "test",
    }
    names = [credential(protocol, number) for number in range(100)]
    with LiveGateway(sandbox, names, settings=settings, keys={KEY: record()}) as gateway:
        drive(gateway)

    # The client of the test logs for itself; it is not part of the gateway.
    texts = [text for text in recorder.texts if "HTTP Request:" not in text]
    assert sum("failed: " in text for text in texts) > len(BEHAVIOURS)
    assert [text for text in texts if PLANTED in text] == []


def test_an_unforeseen_error_is_logged_without_what_was_asked(
    sandbox: SandboxThread, recorder: Recorder
) -> None:
    with LiveGateway(sandbox, [credential("web")], keys={KEY: record()}) as gateway:

        def broken(*args: object) -> None:
            raise KeyError("a bug")

        gateway.inside(lambda: setattr(gateway.runtime.pool, "lease", broken))
        with gateway.client() as client:
            client.headers["Authorization"] = f"Bearer {KEY}"
            body = {"model": "grok-4", "messages": [{"role": "user", "content": PROMPT}]}
            response = client.post("/v1/chat/completions", json=body)

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert any("a bug" in text for text in recorder.texts)
    assert not any(PLANTED in text for text in recorder.texts)


def upstream_texts() -> set[str]:
    """The words of every error that the sandbox can make, as upstream would say them."""
    texts = {row.message for row in UPSTREAM.values()}
    for row in UPSTREAM.values():
        for refusal in (row.web, row.xai):
            if refusal is not None and refusal.content_type == JSON and "gzip" not in row.name:
                body = json.loads(refusal.body)
                texts |= {str(body.get("message") or ""), str(body.get("error") or "")}
    return {text for text in texts if len(text) > 15}


@pytest.mark.parametrize("protocol", ["mgw", "xai"])
def test_upstreams_own_words_stay_out_of_logs_and_answers(
    sandbox: SandboxThread, recorder: Recorder, protocol: str
) -> None:
    """They may quote what was asked, or name the account."""
    settings = PROTOCOLS[protocol] | {"grok.timeout": 1, "xai.timeout": 1, "grok.max_retry": 0}
    names = [credential(protocol, number) for number in range(len(UPSTREAM))]
    failing = [row.name for row in UPSTREAM.values() if row.phase not in {"hang", "silent"}]
    answers = []
    with (
        LiveGateway(sandbox, names, settings=settings, keys={KEY: record()}) as gateway,
        gateway.client() as client,
    ):
        client.headers["Authorization"] = f"Bearer {KEY}"
        for name in failing:
            body = chat(f"SANDBOX:{name}")
            answers.append(client.post("/v1/chat/completions", json=body).text)

    texts = upstream_texts()
    assert "User is blocked. [WKE=unauthorized:blocked-user]" in texts
    said = [*recorder.texts, *answers]
    assert sum('"error"' in answer for answer in answers) > 15
    assert [(text, line) for text in texts for line in said if text in line] == []


def test_every_logger_of_a_dependency_reaches_the_recorder() -> None:
    """One that kept its records to itself would escape the tests above."""
    for name in ("uvicorn.error", "httpx", "aiohttp.client", "websockets", "asyncio", "django"):
        logger: logging.Logger | None = logging.getLogger(name)
        while logger is not None and logger.parent is not None:
            assert logger.propagate
            assert not logger.disabled
            logger = logger.parent
