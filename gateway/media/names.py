"""The names of files in the cache: one flat folder per kind, letters that mean nothing anywhere.

A name is all that stands between an address and the disk, so the rule is an allow-list:
letters, digits, ``.``, ``_`` and ``-``, beginning with a letter or digit, 200 characters at most.
No separator of any system, no dot file, no percent sign, nothing to quote in a header.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Literal

from gateway.media.errors import BadName

Kind = Literal["image", "video"]
KINDS: tuple[Kind, ...] = ("image", "video")
EXTENSIONS: dict[Kind, tuple[str, ...]] = {
    "image": ("jpg", "png", "webp", "gif"),
    "video": ("mp4", "webm"),
}
MAX_NAME = 200
MAX_ASSET = MAX_NAME - len(".webm")
"""Leaves room for the extension that the content turns out to have."""
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_FOREIGN = re.compile(r"[^A-Za-z0-9._-]", re.ASCII)
_KNOWN = frozenset({"jpeg", *(ext for exts in EXTENSIONS.values() for ext in exts)})
_TAG_DIGITS = 16


def as_kind(text: str) -> Kind:
    """Raises BadName."""
    for kind in KINDS:
        if text == kind:
            return kind
    raise BadName


def safe_name(text: str) -> str:
    """The file's name in an address, in which a slash stands for ``-``; raises BadName."""
    if len(text) > MAX_NAME:
        raise BadName
    name = text.replace("/", "-")
    if not _SAFE.fullmatch(name):
        raise BadName
    return name


def name_of_asset(path: str) -> str:
    """The name for upstream's asset path (``users/u-1/a-1/content``); raises BadName if empty.

    Usual paths keep their letters, as old links expect. What has other letters, or is too
    long, gets a hash of the path, so that two paths never share a name for being strange.
    """
    bare = path.strip("/")
    if not bare:
        raise BadName
    name = bare.replace("/", "-")
    if len(name) <= MAX_ASSET and _SAFE.fullmatch(name):
        return name
    tag = sha256(bare.encode("utf-8", "surrogatepass")).hexdigest()[:_TAG_DIGITS]
    stem, extension = split_extension(_FOREIGN.sub("_", name[-MAX_NAME:]))
    ending = f"-{tag}.{extension}" if extension else f"-{tag}"
    return "a-" + stem[: MAX_ASSET - len(ending) - 2] + ending


def split_extension(name: str) -> tuple[str, str]:
    """Stem and extension; the latter is "" unless it is one of a picture or video."""
    stem, dot, extension = name.rpartition(".")
    if dot and stem and extension.lower() in _KNOWN:
        return stem, extension
    return name, ""


def with_extension(name: str, extension: str) -> str:
    """``name`` with this extension in place of a known one; raises BadName if too long."""
    return safe_name(f"{split_extension(name)[0]}.{extension}")


def spellings(kind: Kind, name: str) -> tuple[str, ...]:
    """Where to look for ``name``: as it is, then with each extension that the content may have.

    The extension follows the content, so an old link may name another one, or none.
    """
    stem = split_extension(name)[0]
    others = (f"{stem}.{extension}" for extension in EXTENSIONS[kind])
    return (name, *(other for other in others if other != name and len(other) <= MAX_NAME))
