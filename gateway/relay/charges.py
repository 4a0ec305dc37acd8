"""What a request costs its client key per day (http-contract section 9)."""

from __future__ import annotations

from gateway.catalog import Model
from pool.limits.charges import Charge

PICTURES_PER_CHAT = 2


def chat_charge(model: Model) -> Charge:
    """One request on chat completions, whatever the model makes."""
    if model.kind == "video":
        return Charge(video=1)
    if model.kind in {"image", "image_edit"}:
        return Charge(image=PICTURES_PER_CHAT)
    return Charge(chat=1, heavy=1 if model.heavy else 0)
