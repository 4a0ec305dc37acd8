"""One chat call: which lanes, which upstream, and the prompt form the web needs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from gateway.catalog import Model, WebNames
from gateway.conf.schema import Config
from gateway.relay.attempts import Attempts, Batches, RetryPolicy, Watcher
from gateway.relay.health import ProfileHealth
from gateway.relay.hosting import Hosting, MediaSource, Opened
from gateway.relay.lanes import WebForm, lanes_for
from gateway.relay.recording import Recording
from gateway.translate.flatten import flatten
from gateway.translate.tool_stream import ToolStream
from gateway.upstream.attachments import AttachmentLoader
from gateway.upstream.events import Event
from gateway.upstream.requests import Account, AudioPart, ChatRequest, FetchedFile, WebTarget
from gateway.upstream.web.client import WebUpstream
from gateway.upstream.xai.client import XaiUpstream
from pool.leases import Lane, Lease, Pool, Want
from pool.waiting import WaitingRoom


def web_form(config: Config) -> WebForm:
    """The protocol generation that web chat speaks with this configuration."""
    return "mgw" if config.grok.chat_protocol == "mgw" else config.grok.rest_form


def target_of(names: WebNames, form: WebForm) -> WebTarget:
    mode = names.mgw_mode if form == "mgw" else names.mode
    return WebTarget(names.name, names.mode_enum, mode)


@dataclass(slots=True)
class ChatRelay:
    """``new_loader`` makes the attachment loader of one request, ``new_id`` random text."""

    pool: Pool
    room: WaitingRoom
    web: WebUpstream
    xai: XaiUpstream
    config: Callable[[], Config]
    new_loader: Callable[[], AttachmentLoader]
    new_id: Callable[[], str]
    health: ProfileHealth
    watcher: Watcher
    hosting: Hosting

    async def open(self, request: ChatRequest, model: Model, recording: Recording) -> Answer:
        """Raises EmptyPrompt, AttachmentError, NoCredential or UpstreamError."""
        config = self.config()
        call = _Call(self, request, model, web_form(config))
        lanes = call.lanes(config)
        await call.prepare(lanes)
        policy = RetryPolicy(config.grok.max_retry, frozenset(config.grok.retry_status_codes))
        attempts = Attempts(self.pool, self.room, call, policy, recording, self.watcher)
        committed = await attempts.commit(Want(lanes, model.id))
        if committed.lease.lane.kind == "api":
            return Answer(committed, None)
        self.health.succeeded()
        return Answer(committed, call.prompt_characters())


@dataclass(frozen=True, slots=True)
class Answer:
    """``prompt_characters`` is set where tokens have to be estimated, else None."""

    committed: Opened
    prompt_characters: int | None


class _Call:
    """Everything the attempts of one request share; what is costly is done once."""

    def __init__(self, relay: ChatRelay, request: ChatRequest, model: Model, form: WebForm) -> None:
        self._relay = relay
        self._request = request
        self._model = model
        self._form = form
        self._web_input: tuple[str, list[FetchedFile]] | None = None

    def lanes(self, config: Config) -> tuple[Lane, ...]:
        """api.x.ai takes no sound in chat, so such a request stays with the web if it can."""
        lanes = lanes_for(self._model, config.pool.policy, self._form)
        if any(isinstance(part, AudioPart) for turn in self._request.turns for part in turn.parts):
            return tuple(lane for lane in lanes if lane.kind != "api") or lanes
        return lanes

    async def prepare(self, lanes: tuple[Lane, ...]) -> None:
        """Do the web's share of the work before a credential is held for it."""
        if lanes and lanes[0].kind != "api":
            web = tuple(lane for lane in lanes if lane.kind != "api")
            if self._relay.pool.serves(web):
                await self._prepared()

    async def _prepared(self) -> tuple[str, list[FetchedFile]]:
        if self._web_input is None:
            flat = flatten(self._request)
            files: list[FetchedFile] = []
            if flat.file_parts:
                loader = self._relay.new_loader()
                files = [await loader.load(part) for part in flat.file_parts]
            self._web_input = flat.prompt, files
        return self._web_input

    def prompt_characters(self) -> int | None:
        return len(self._web_input[0]) if self._web_input else None

    def __call__(self, lease: Lease, account: Account) -> Batches:
        if lease.lane.kind == "api":
            return self._relay.xai.chat(self._request, lease.lane.bucket, account)
        inline = self._relay.config().app.image_format == "base64"
        source = MediaSource.of(lease, account)
        return self._relay.hosting.rehosted(self._from_web(account), source, inline=inline)

    def _from_web(self, account: Account) -> Batches:
        if self._web_input is not None and not self._wants_tools():
            return self._ask_web(*self._web_input, account)
        return self._over_web(account)

    def _wants_tools(self) -> bool:
        return bool(self._request.tools) and self._request.tool_choice.mode != "none"

    def _ask_web(self, prompt: str, files: list[FetchedFile], account: Account) -> Batches:
        if self._model.web is None:
            raise ValueError(f"{self._model.id} is not served by the web")
        return self._relay.web.chat(prompt, files, target_of(self._model.web, self._form), account)

    async def _over_web(self, account: Account) -> AsyncGenerator[list[Event], None]:
        tools = ToolStream(self._request, self._relay.new_id) if self._wants_tools() else None
        async with aclosing(self._ask_web(*await self._prepared(), account)) as batches:
            async for batch in batches:
                events = tools.rewrite(batch) if tools else batch
                if events:
                    yield events
