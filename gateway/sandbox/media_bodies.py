"""REST stream objects of pictures and videos (upstream-web 7.1 and 9.4)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.sandbox.scripts import Script
from gateway.sandbox.web_bodies import (
    GARBAGE,
    conversation_object,
    error_object,
    model_response,
    response_object,
    said,
)


def image_paths(user_id: str, image_id: str) -> tuple[str, str]:
    """Where the preview and the finished picture of an account lie."""
    base = f"users/{user_id}/generated/{image_id}"
    return f"{base}-part-0/image.jpg", f"{base}/image.jpg"


def video_path(user_id: str, video_id: str) -> str:
    return f"users/{user_id}/generated/{video_id}/generated_video.mp4"


def poster_path(user_id: str, video_id: str) -> str:
    return f"users/{user_id}/generated/{video_id}/preview_image.jpg"


def _progress(response_id: str, index: int, image_id: str, url: str, percent: int) -> bytes:
    progress = {"imageId": image_id, "imageIndex": index, "progress": percent, "imageUrl": url}
    return response_object(response_id, streamingImageGenerationResponse=progress)


def _final(response_id: str, index: int, image_id: str, url: str, moderated: bool) -> bytes:
    """A finished picture; odd ones come as a card with a placeholder first (2.6)."""
    if index % 2 == 0:
        final = {
            "imageId": image_id,
            "imageIndex": index,
            "progress": 100,
            "imageUrl": url,
            "moderated": moderated,
        }
        return response_object(response_id, streamingImageGenerationResponse=final)
    chunk = {"imageUuid": image_id, "imageUrl": url, "progress": 100, "moderated": moderated}
    card = {
        "id": f"card-{image_id}",
        "type": "render_file",
        "cardType": "generated_image_card",
        "image_chunk": chunk,
    }
    return response_object(response_id, cardAttachment={"jsonData": json.dumps(card)})


def image_script(
    user_id: str, image_ids: Sequence[str], withheld: frozenset[int], response_id: str
) -> Script:
    """Pictures of one turn: previews interleaved, finals in reverse order, then the answer."""
    paths = [image_paths(user_id, image_id) for image_id in image_ids]
    slots = list(enumerate(image_ids))
    previews = [_progress(response_id, i, id_, paths[i][0], 50) for i, id_ in slots]
    finals = [_final(response_id, i, id_, paths[i][1], i in withheld) for i, id_ in reversed(slots)]
    opening = (
        conversation_object(f"conv-{response_id}"),
        response_object(response_id, imageAttachmentInfo={}),
        model_response(response_id, "", generatedImageUrls=["", "/"]),
    )
    urls = [final for i, (_, final) in enumerate(paths) if i not in withheld]
    closing = (
        said(response_id, "Here it is.", isSoftStop=True),
        model_response(response_id, "Here it is.", generatedImageUrls=urls),
    )
    frames = (*opening, *previews, *finals, *closing)
    failed = {"message": "image generation failed", "code": 13}
    return Script(
        frames=frames,
        cut_at=len(opening) + len(previews),
        answer_end=len(opening) + len(previews),
        complete_at=len(frames),
        error=error_object,
        failure=(model_response(response_id, "", errors=(failed,)),),
        garbage=GARBAGE,
    )


def _video_progress(response_id: str, video_id: str, post_id: str, percent: int) -> bytes:
    progress = {
        "videoId": video_id,
        "videoPostId": post_id,
        "progress": percent,
        "resolutionName": "720p",
    }
    return response_object(response_id, streamingVideoGenerationResponse=progress)


def _video_final(
    response_id: str, user_id: str, video_id: str, post_id: str, moderated: bool
) -> bytes:
    final = {
        "videoId": video_id,
        "videoPostId": post_id,
        "assetId": video_id,
        "progress": 100,
        "videoUrl": "" if moderated else video_path(user_id, video_id),
        "thumbnailImageUrl": poster_path(user_id, video_id),
        "moderated": moderated,
    }
    return response_object(response_id, streamingVideoGenerationResponse=final)


def video_script(
    user_id: str, video_id: str, post_id: str, moderated: bool, response_id: str
) -> Script:
    """Progress, the finished video, a word and the answer; a moderated one never has a URL."""
    progress = tuple(
        _video_progress(response_id, video_id, post_id, percent) for percent in (1, 50, 95)
    )
    files = [] if moderated else [video_path(user_id, video_id)]
    frames = (
        conversation_object(f"conv-{response_id}"),
        *progress,
        _video_final(response_id, user_id, video_id, post_id, moderated),
        said(response_id, "I generated a video", isSoftStop=True),
        model_response(response_id, "", fileAttachments=files),
    )
    failed = {"message": "video generation failed", "code": 13}
    return Script(
        frames=frames,
        cut_at=3,
        answer_end=3,
        complete_at=len(frames),
        error=error_object,
        failure=(model_response(response_id, "", errors=(failed,)),),
        garbage=GARBAGE,
    )
