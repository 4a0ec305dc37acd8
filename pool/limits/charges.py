"""What a request costs its key: units of the four daily buckets."""

from __future__ import annotations

from typing import Literal, NamedTuple

Daily = Literal["chat", "heavy", "image", "video"]
BUCKETS: tuple[Daily, ...] = ("chat", "heavy", "image", "video")


class Charge(NamedTuple):
    """Units per daily bucket, in the order of BUCKETS. All fit, or nothing is taken."""

    chat: int = 0
    heavy: int = 0
    image: int = 0
    video: int = 0


NOTHING = Charge()
