"""Reading a form with files: fields into memory, files onto the disk, all within limits."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from django.http import HttpRequest

from gateway.api.errors import shown
from gateway.api.form_parts import Event, FormParts, PartEnd, PartHead, broken
from gateway.api.incoming import Incoming, incoming_of
from gateway.api.media_errors import told_clients
from gateway.media.part_file import PartFile
from gateway.media.store import MIB, MediaStore
from gateway.wire.errors import ApiError, bad_request

_BUFFER = MIB


@dataclass(frozen=True, slots=True)
class FileRule:
    """How many files of a field there may be, and of how many bytes each.

    ``aliases`` are other names for the field; errors call it by its own. ``too_many`` is the
    code for one file more.
    """

    max_count: int = 1
    max_bytes: int = 50 * MIB
    aliases: tuple[str, ...] = ()
    too_many: str = "too_many_files"


@dataclass(frozen=True, slots=True)
class FormRules:
    """Limits of a form, in bytes; ``max_text`` is for all plain fields together.

    Files of fields that are not in ``files`` are read and forgotten.
    """

    files: Mapping[str, FileRule]
    max_total: int
    max_fields: int = 100
    max_text: int = MIB

    def field_of(self, head: PartHead) -> str | None:
        """The field that a file belongs to; None for a plain field and an unwanted file."""
        if head.filename is None:
            return None
        for name, rule in self.files.items():
            if head.name == name or head.name in rule.aliases:
                return name
        return None


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """``filename`` and ``content_type`` are the client's word and prove nothing."""

    part: PartFile
    filename: str
    content_type: str

    @property
    def size(self) -> int:
        return self.part.size


@dataclass(slots=True)
class Form:
    """Values and files by field, in their order in the form."""

    values: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[UploadedFile]] = field(default_factory=dict)

    def value(self, name: str) -> str | None:
        """The last one given."""
        found = self.values.get(name)
        return found[-1] if found else None


@asynccontextmanager
async def read_form(
    request: HttpRequest, rules: FormRules, store: MediaStore
) -> AsyncGenerator[Form, None]:
    """The form of ``request``; its files are there until the end of the context.

    Files go to the disk as they come, fields may be in any order. A file that ``store.keep``
    has taken stays; all others are removed in every case. Raises ApiError, naming the field.
    """
    reader = _Reader(rules, store)
    try:
        with told_clients():
            await reader.read(_body_of(request, rules), request.headers.get("Content-Type", ""))
        yield reader.form
    finally:
        await reader.aclose()


def _body_of(request: HttpRequest, rules: FormRules) -> Incoming:
    incoming = incoming_of(request)
    if incoming is None:
        raise bad_request("This takes multipart/form-data.", "form_invalid", "body")
    if incoming.size is not None and incoming.size > rules.max_total:
        raise _too_much(rules)
    return incoming


def _too_much(rules: FormRules) -> ApiError:
    text = f"The form is larger than {rules.max_total // MIB} MiB."
    return ApiError(413, text, code="request_too_large", param="body")


class _Reader:
    def __init__(self, rules: FormRules, store: MediaStore) -> None:
        self.form = Form()
        self._rules = rules
        self._store = store
        self._parts: list[PartFile] = []
        self._head: PartHead | None = None
        self._field: str | None = None
        self._count = self._text_size = 0
        self._buffer = bytearray()

    async def read(self, incoming: Incoming, content_type: str) -> None:
        parser = FormParts(content_type)
        async for data in incoming.parts():
            if incoming.taken > self._rules.max_total:
                raise _too_much(self._rules)
            for event in parser.feed(data):
                await self._take(event)
        parser.close()

    async def _take(self, event: Event) -> None:
        if isinstance(event, PartHead):
            self._begin(event)
        elif isinstance(event, PartEnd):
            await self._end()
        elif self._field is not None:
            await self._file_data(event)
        elif self._head is not None and self._head.filename is None:
            self._field_data(event, self._head)

    def _begin(self, head: PartHead) -> None:
        self._head, self._field = head, self._rules.field_of(head)
        self._buffer = bytearray()
        self._count += 1
        most = self._rules.max_fields + sum(rule.max_count for rule in self._rules.files.values())
        if self._count > most:
            raise broken("The form has too many parts.")
        if self._field is not None:
            self._begin_file(self._field, head)

    def _begin_file(self, name: str, head: PartHead) -> None:
        rule = self._rules.files[name]
        files = self.form.files.setdefault(name, [])
        if len(files) >= rule.max_count:
            text = f"The field {name} has more files than {rule.max_count}."
            raise bad_request(text, rule.too_many, name)
        part = self._store.part(rule.max_bytes)
        self._parts.append(part)
        files.append(UploadedFile(part, head.filename or "", head.content_type))

    async def _file_data(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            await self._flush()

    async def _flush(self) -> None:
        part, data, self._buffer = self._parts[-1], self._buffer, bytearray()
        with told_clients(self._field):
            await self._store.run(lambda: part.write(data))

    def _field_data(self, data: bytes, head: PartHead) -> None:
        self._buffer += data
        self._text_size += len(data)
        if self._text_size > self._rules.max_text:
            text = f"The field {shown(head.name)} is too long."
            raise bad_request(text, "string_too_long", head.name)

    async def _end(self) -> None:
        head, self._head = self._head, None
        if self._field is not None:
            await self._end_file(self._field)
        elif head is not None and head.filename is None:
            self.form.values.setdefault(head.name, []).append(_text(self._buffer, head.name))

    async def _end_file(self, name: str) -> None:
        if self._buffer:
            await self._flush()
        if not self._parts[-1].size:
            raise bad_request("The file is empty.", "empty_file", name)

    async def aclose(self) -> None:
        await self._store.discard(*self._parts)


def _text(data: bytearray, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        text = f"The field {shown(name)} is not UTF-8."
        raise bad_request(text, "invalid_value", name) from error
