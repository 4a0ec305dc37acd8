"""Where each model may be served, by policy and protocol."""

from __future__ import annotations

import pytest

from gateway.catalog import MODELS, Catalog
from gateway.relay.lanes import Policy, WebForm, bucket_of, lanes_for
from pool.leases import Lane

POLICIES: list[Policy] = ["web_first", "api_first", "web_only", "api_only"]
FORMS: list[WebForm] = ["mgw", "mode_id", "model_name"]
CATALOG = Catalog()


def lanes(model_id: str, policy: Policy, form: WebForm) -> list[Lane]:
    model = CATALOG.find(model_id)
    assert model is not None
    return list(lanes_for(model, policy, form))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_every_model_keeps_to_the_policy(model: object, policy: Policy, form: WebForm) -> None:
    found = lanes_for(model, policy, form)  # type: ignore[arg-type]
    kinds = [lane.kind for lane in found]

    assert len(set(kinds)) == len(kinds)
    if policy == "api_only":
        assert set(kinds) <= {"api"}
    if policy == "web_only":
        assert "api" not in kinds
    if policy == "api_first" and "api" in kinds:
        assert kinds[0] == "api"
    if policy == "web_first" and "api" in kinds:
        assert kinds[-1] == "api"
    web = [kind for kind in kinds if kind != "api"]
    assert web in ([], ["sso", "ssoSuper"], ["ssoSuper"])


@pytest.mark.parametrize(
    ("model_id", "form", "bucket", "cost"),
    [
        ("grok-3", "mgw", "fast", 1),
        ("grok-4", "mgw", "auto", 1),
        ("grok-4", "mode_id", "auto", 1),
        ("grok-4", "model_name", "grok-4", 1),
        ("grok-4-heavy", "mgw", "heavy", 1),
        ("grok-4-heavy", "model_name", "grok-4-heavy", 4),
        ("grok-4.1-expert", "model_name", "grok-4-1-thinking-1129", 4),
        ("grok-4.20-beta", "mgw", "auto", 1),
        ("grok-4.20-beta", "mode_id", "grok-420-computer-use-sa", 1),
    ],
)
def test_a_bucket_is_what_upstream_counts(
    model_id: str, form: WebForm, bucket: str, cost: int
) -> None:
    model = CATALOG.find(model_id)
    assert model is not None

    assert bucket_of(model, form) == (bucket, cost)


def test_heavy_is_served_by_super_sessions_only() -> None:
    assert lanes("grok-4-heavy", "web_first", "mgw") == [Lane("ssoSuper", "heavy", 1)]


def test_a_key_draws_on_the_bucket_of_its_model() -> None:
    assert lanes("grok-3", "api_only", "mgw") == [Lane("api", "grok-4.3", 1)]


def test_an_alias_never_hides_a_model() -> None:
    catalog = Catalog()
    catalog.set_aliases({"grok-4": "grok-3", "smart": "grok-4", "lost": "nothing"})

    assert catalog.find("grok-4") is CATALOG.find("grok-4")
    smart = catalog.find("smart")
    assert smart is not None
    assert smart.id == "grok-4"
    assert catalog.find("lost") is None
    assert "lost" not in [model.id for model in catalog.listing()]


def test_discovered_models_are_told_apart_by_the_vendors_names() -> None:
    catalog = Catalog()
    catalog.set_discovered(["grok-4.7", "grok-imagine-image", "grok-imagine-video", "grok-4"])

    kinds = {m.id: m.kind for m in catalog.listing() if m.owned_by == "xai"}
    assert kinds == {
        "grok-4.7": "chat",
        "grok-imagine-image": "image",
        "grok-imagine-video": "video",
    }
