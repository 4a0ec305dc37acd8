"""Quota replies of grok.com."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.upstream.errors import UpstreamFailed
from gateway.upstream.web.quota import (
    QuotaReading,
    parse_media_quota,
    parse_rate_limit,
    rate_limit_body,
)

NOW = 1_790_000_000.0


def test_it_asks_by_mode_or_by_model_name() -> None:
    assert json.loads(rate_limit_body("fast", by_mode=True)) == {"modelName": "fast"}
    assert json.loads(rate_limit_body("grok-3", by_mode=False)) == {
        "requestKind": "DEFAULT",
        "modelName": "grok-3",
    }


@pytest.mark.parametrize(
    ("reply", "remaining", "total"),
    [
        ({"remainingQueries": 118, "totalQueries": 140, "remainingTokens": 7}, 118, 140),
        ({"remainingQueries": 0, "totalQueries": 140}, 0, 140),
        ({"remainingTokens": 30, "totalTokens": 80}, 30, 80),
        ({"totalQueries": 0, "remainingQueries": 5, "remainingTokens": 9}, 9, None),
        ({"totalQueries": 140}, None, 140),
        ({}, None, None),
        ({"remainingTokens": True}, None, None),
        ({"remainingTokens": "12"}, None, None),
        ({"remainingTokens": float("nan")}, None, None),
    ],
)
def test_it_never_takes_a_missing_field_for_zero(
    reply: dict[str, Any], remaining: int | None, total: int | None
) -> None:
    reading = parse_rate_limit(reply, NOW)
    assert (reading.remaining, reading.total) == (remaining, total)


def test_it_resets_after_the_window() -> None:
    assert parse_rate_limit({"windowSizeSeconds": 86400}, NOW).resets_at == NOW + 86400
    assert parse_rate_limit({"windowSizeSeconds": 0}, NOW).resets_at == NOW + 7200
    assert parse_rate_limit({"waitTimeSeconds": 12}, NOW).wait == 12


def media(**changes: Any) -> dict[str, Any]:
    reply = {
        "image": None,
        "imageEdit": {"available": False},
        "imagePro": {"available": True, "remainingQueries": 2, "windowSizeSeconds": 86400},
        "video": None,
        "video720p": {
            "available": True,
            "remainingQueries": 0,
            "windowSizeSeconds": 86400,
            "nextAvailableAt": "2026-08-18T04:47:49.9Z",
        },
    }
    return reply | changes


def test_it_reads_a_media_snapshot() -> None:
    assert parse_media_quota(media(), NOW) == {
        "image_pro": QuotaReading(2, window=86400.0, resets_at=NOW + 86400),
        "image_edit": QuotaReading(0),
        "video": None,
        "video_720p": QuotaReading(0, window=86400.0, resets_at=1_787_028_469.9),
    }


@pytest.mark.parametrize(
    "product",
    [
        "yes",
        {},
        {"available": "true"},
        {"available": True},
        {"available": True, "remainingQueries": 3},
        {"available": True, "remainingQueries": "3", "windowSizeSeconds": 1},
    ],
)
def test_it_rejects_the_whole_snapshot_for_one_bad_product(product: Any) -> None:
    with pytest.raises(UpstreamFailed):
        parse_media_quota(media(video=product), NOW)


def test_it_rejects_a_snapshot_with_a_key_missing() -> None:
    reply = media()
    del reply["image"]
    with pytest.raises(UpstreamFailed):
        parse_media_quota(reply, NOW)
