"""Pictures as the answer to a conversation (http-contract 5.2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from gateway.catalog import Model
from gateway.conf.schema import Config
from gateway.media.formats import JPEG, PNG, WEBP
from gateway.media.store import MIB, MediaStore
from gateway.relay.charges import PICTURES_PER_CHAT
from gateway.relay.hosting import LOST_PICTURE, stored_file
from gateway.relay.images import HostedAnswer, ImageJob, ImageRelay
from gateway.relay.recording import Recording
from gateway.translate.flatten import EmptyPrompt
from gateway.upstream.attachments import AttachmentLoader
from gateway.upstream.requests import (
    ChatRequest,
    FetchedFile,
    ImagePart,
    StoredFile,
    TextPart,
    Turn,
)
from gateway.wire.errors import bad_request

INPUT_FORMATS = (PNG, JPEG, WEBP)
MAX_INPUT_BYTES = 50 * MIB


@dataclass(frozen=True, slots=True)
class ImageAnswer:
    """As ``chat.Answer``: nothing here is estimated, since pictures have no tokens."""

    committed: HostedAnswer
    prompt_characters: None = None


@dataclass(slots=True)
class ImageChat:
    """``new_loader`` makes the loader of one picture that a message refers to."""

    images: ImageRelay
    config: Callable[[], Config]
    new_loader: Callable[[], AttachmentLoader]

    async def open(self, request: ChatRequest, model: Model, recording: Recording) -> ImageAnswer:
        """The pictures for the last user message; those in it are edited by an edit model.

        Raises ApiError, EmptyPrompt, AttachmentError, MediaError, NoCredential or
        UpstreamError.
        """
        turn = _last_user_turn(request)
        prompt = "\n".join(part.text for part in turn.parts if isinstance(part, TextPart))
        if not prompt.strip():
            raise EmptyPrompt
        sources = _pictures_of(turn, model)
        store = self.images.hosting.store
        inline = self.config().app.image_format == "base64"
        async with AsyncExitStack() as undo:
            async with loaded_inputs(sources, self.new_loader, store) as inputs:
                job = ImageJob(prompt, count=PICTURES_PER_CHAT, inputs=inputs, inline=inline)
                answer = await self.images.open(job, model, recording, lost_text=LOST_PICTURE)
                undo.push_async_callback(answer.aclose)
            undo.pop_all()
        return ImageAnswer(answer)


def _last_user_turn(request: ChatRequest) -> Turn:
    for turn in reversed(request.turns):
        if turn.role == "user":
            return turn
    raise EmptyPrompt


def _pictures_of(turn: Turn, model: Model) -> list[ImagePart]:
    """Raises ApiError 400 for parts that ``model`` does not take, or for missing ones."""
    editing = model.kind == "image_edit"
    others = [part for part in turn.parts if not isinstance(part, TextPart)]
    pictures = [part for part in others if isinstance(part, ImagePart)]
    if len(pictures) != len(others) or (pictures and not editing):
        text = "This model takes text and pictures." if editing else "This model takes text only."
        raise bad_request(text, "invalid_value", "messages")
    if editing and not pictures:
        text = "The last user message has no picture to edit."
        raise bad_request(text, "missing_image", "messages")
    return pictures


@asynccontextmanager
async def loaded_inputs(
    sources: Sequence[ImagePart], new_loader: Callable[[], AttachmentLoader], store: MediaStore
) -> AsyncGenerator[tuple[StoredFile, ...], None]:
    """Pictures by address or ``data:`` URI as checked files, there until the end of the context.

    One at a time, so that no more than one is in memory. Raises AttachmentError, MediaError.
    """
    parts = [store.part(MAX_INPUT_BYTES) for _ in sources]
    try:
        files: list[StoredFile] = []
        for source, part in zip(sources, parts, strict=True):
            found: FetchedFile = await new_loader().load(source)
            await store.run(partial(part.write, found.content))
            checked = await store.check(part, INPUT_FORMATS)
            files.append(stored_file(part, checked, found.name))
        yield tuple(files)
    finally:
        await store.discard(*parts)
