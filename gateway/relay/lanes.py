"""Where a model may be served, in order of preference."""

from __future__ import annotations

from typing import Literal

from gateway.catalog import Model
from pool.leases import Lane

Policy = Literal["web_first", "api_first", "web_only", "api_only"]
WebForm = Literal["mgw", "mode_id", "model_name"]


def lanes_for(model: Model, policy: Policy, form: WebForm) -> tuple[Lane, ...]:
    """The lowest sufficient tier first within the web; ``api`` where the policy puts it.

    The bucket of a web lane is the quota upstream draws on: the mode, or in Gen 1 the
    rate-limit name. That of an ``api`` lane is the model, since limits there are per team
    and model (upstream-xai 10.4).
    """
    web = () if policy == "api_only" else _web_lanes(model, form)
    api = () if policy == "web_only" or not model.xai else (Lane("api", model.xai),)
    return api + web if policy == "api_first" else web + api


def _web_lanes(model: Model, form: WebForm) -> tuple[Lane, ...]:
    if model.web is None:
        return ()
    kinds = ("ssoSuper",) if model.tier == "super" else ("sso", "ssoSuper")
    bucket, cost = bucket_of(model, form)
    return tuple(Lane(kind, bucket, cost) for kind in kinds)


def bucket_of(model: Model, form: WebForm) -> tuple[str, int]:
    """Bucket and cost of one call: a mode counts queries, a Gen 1 name counts units."""
    if model.web is None:
        raise ValueError(f"{model.id} is not served by the web")
    if form == "model_name":
        return model.web.quota_name, model.cost
    return (model.web.mgw_mode if form == "mgw" else model.web.mode), 1


def imagine_lanes(model: Model, policy: Policy) -> tuple[Lane, ...]:
    """For one picture of grok.com's picture socket; none where the web is not used."""
    if policy == "api_only" or model.web is None:
        return ()
    return tuple(Lane(kind, "image_pro") for kind in ("sso", "ssoSuper"))


def edit_lanes(model: Model, policy: Policy, form: WebForm) -> tuple[Lane, ...]:
    """As ``lanes_for``; an edit draws on a bucket of the media quota, except in Gen 1."""
    lanes = lanes_for(model, policy, form)
    if form == "model_name":
        return lanes
    bucket = {"sso": "image_pro", "ssoSuper": "image_edit"}
    return tuple(Lane(lane.kind, bucket.get(lane.kind, lane.bucket), lane.cost) for lane in lanes)
