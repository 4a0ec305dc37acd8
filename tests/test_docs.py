"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from gateway.catalog import MODELS
from gateway.conf.keys import KEYS
from gateway.upstream import errors, taxonomy
from gateway.upstream.errors import UpstreamError
from grok2api import __version__

ROOT = Path(__file__).parent.parent
API = (ROOT / "docs/api.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")])
PACKAGES = ("grok2api", "pool", "gateway", "register")


def sources() -> list[str]:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    files = [file for file in files if not {"sandbox", "conf"} & set(file.parts)]
    return [file.read_text(encoding="utf-8") for file in files]


def patterns(resolver: URLResolver, prefix: str = "") -> list[str]:
    found = []
    for item in resolver.url_patterns:
        path = prefix + str(item.pattern)
        if isinstance(item, URLPattern):
            found.append(path)
        else:
            found += patterns(item, path)
    return found


def test_every_client_route_is_documented() -> None:
    routes = [path for path in patterns(get_resolver()) if path.startswith(("v1/", "health"))]
    routes = [path for path in routes if path != "v1/"]
    assert len(routes) >= 4
    for path in [*routes, "livez", "readyz"]:
        shown = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)
        assert f"/{shown}`" in API, path


def test_every_error_code_is_documented() -> None:
    raised = set(re.findall(r'code="([a-z_]+)"', "\n".join(sources())))
    kinds = [*vars(errors).values(), *vars(taxonomy).values()]
    raised |= {
        kind.code for kind in kinds if isinstance(kind, type) and issubclass(kind, UpstreamError)
    }
    assert "rate_limit_exceeded" in raised
    assert [code for code in sorted(raised) if f"`{code}`" not in API] == []


def test_the_model_table_is_the_catalogue() -> None:
    rows = re.findall(
        r"^\| `(grok-[^`]+)` \| (\w+) \| (\w+) \| (\d) \| ([\w-]*) \| (\S*) ?\|$", API, re.M
    )
    expected = [
        (m.id, m.kind, m.tier, str(m.cost), m.web.mgw_mode if m.web else "", m.xai or "")
        for m in MODELS
    ]
    assert rows == expected


def test_every_process_variable_is_documented() -> None:
    names = set(
        re.findall(r'"((?:GROK2API|SERVER)_[A-Z_]+|REDIS_URL|LOG_LEVEL)"', "\n".join(sources()))
    )
    assert "SERVER_PORT" in names
    missing = [n for n in sorted(names) if n.removesuffix("_FILE") not in CONFIGURATION]
    assert missing == []


def test_settings_without_effect_are_said_to_have_none() -> None:
    """A setting counts as used where ``section.name`` is read outside the configuration."""
    code = "\n".join(sources())
    unused = {
        key
        for key, described in KEYS.items()
        if not described.unused and not re.search(rf"\b{re.escape(key)}\b", code)
    }
    section = CONFIGURATION.split("<!-- waiting -->")[1].split("<!-- end of waiting -->")[0]
    assert set(re.findall(r"`([a-z0-9_.]+)`", section)) == unused


def test_the_newest_change_is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(r"^## (\S+)", changelog, re.M)
    assert match is not None
    assert match.group(1) == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), target


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for page in PAGES:
        named = set(re.findall(r"`(?:\w+=\S+ )*make ([a-z]+)`", page.read_text(encoding="utf-8")))
        assert named <= targets, page.name


def test_both_readmes_name_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
        return [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]

    english = [line for line in commands("README.md") if line.startswith(("make", ".venv"))]
    chinese = [line for line in commands("README.zh-CN.md") if line.startswith(("make", ".venv"))]
    assert english == chinese
    assert english[:2] == ["make demo", "make test"]
