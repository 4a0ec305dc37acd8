"""``/v1/videos``: OpenAI's shapes of a video job."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class VideoReference(BaseModel):
    """The first frame by address; files by id are not kept here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    image_url: str | None = None
    file_id: str | None = None


class CreateVideo(BaseModel):
    """``seconds`` and ``size`` are checked by hand, having codes of their own.

    ``preset`` is ours: what grok.com calls the mode of a video.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    prompt: str
    model: str | None = None
    seconds: str | int | None = None
    size: str | None = None
    preset: str | None = None
    input_reference: str | VideoReference | None = None
    user: str | None = None

    @property
    def reference_url(self) -> str:
        """The address of the first frame, "" for none."""
        given = self.input_reference
        return given if isinstance(given, str) else (given.image_url or "" if given else "")


def deletion(public_id: str) -> dict[str, Any]:
    return {"id": public_id, "object": "video.deleted", "deleted": True}


def listing(videos: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": videos,
        "first_id": videos[0]["id"] if videos else None,
        "last_id": videos[-1]["id"] if videos else None,
        "has_more": has_more,
    }
