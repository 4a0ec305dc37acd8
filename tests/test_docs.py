"""The documentation says what the code does."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.urls import URLPattern, URLResolver, get_resolver

from gateway.api.errors import CODES
from gateway.api.file_responses import STALLED
from gateway.api.forms import FileRule
from gateway.api.incoming import PACE
from gateway.catalog import MODELS
from gateway.conf.keys import KEYS, SECTIONS
from gateway.consumers import admission, imagine, sockets
from gateway.exchange import End
from gateway.ledger.spans import HOURS_KEPT
from gateway.management.commands.refresh_quota import INTERRUPTED
from gateway.media import checks, housekeeping
from gateway.media.errors import BadContent
from gateway.media.store import MAX_BYTES, MIB, RESERVE
from gateway.relay import (
    image_chat,
    imagine_round,
    imagine_run,
    query_pauses,
    quota_sync,
    video_jobs,
)
from gateway.relay.video_jobs import QueueFull
from gateway.sandbox.serve import SandboxThread
from gateway.telemetry import slots, tracing
from gateway.translate.videos import MAX_PROMPT
from gateway.upstream import attachments, errors, fetch, taxonomy
from gateway.upstream.errors import Effect, UpstreamError
from gateway.upstream.web.media import edits
from gateway.upstream.xai.images import MAX_EDITED, MAX_INPUT_BYTES
from gateway.videos import table as video_table
from gateway.wire.chat import ChatCompletionRequest, Message, VideoConfig
from gateway.wire.images import ImageGenerationBody
from gateway.wire.videos import CreateVideo
from grok2api import __version__
from pool import census, leadership, upkeep
from pool.admin import USAGE_DAYS
from pool.limits import day
from pool.limits import upkeep as usage_upkeep
from pool.limits.limiter import WHEN_BUSY
from pool.limits.table import CAPACITY
from pool.models import BucketQuota, Kind
from pool.policy import PoolPolicy
from pool.rotation import BATCH
from pool.shared import store

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part == "data" for part in page.relative_to(ROOT).parts)
)
API, CONFIGURATION, OPERATIONS, ARCHITECTURE, DEPLOYMENT = (
    (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    for name in ("api", "configuration", "operations", "architecture", "deployment")
)
PACKAGES = ("grok2api", "pool", "gateway", "register")


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def sources() -> list[str]:
    """Without the sandbox, which is not ours to document, and the configuration itself."""
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    files = [file for file in files if not {"sandbox", "conf"} & set(file.parts)]
    return [file.read_text(encoding="utf-8") for file in files]


def nodes(texts: list[str]) -> Iterator[ast.AST]:
    for text in texts:
        yield from ast.walk(ast.parse(text))


def calls(*names: str) -> Iterator[ast.Call]:
    """Calls of functions, classes or methods with one of ``names``."""
    for node in nodes(sources()):
        if isinstance(node, ast.Call):
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in names:
                yield node


def literal(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None


def texts(node: ast.expr) -> tuple[object, ...]:
    """The literals in a tuple."""
    return tuple(map(literal, node.elts)) if isinstance(node, ast.Tuple) else ()


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((given.value for given in call.keywords if given.arg == name), None)


def constants() -> dict[str, object]:
    """What the names of constants stand for, also those they are imported under."""
    found: dict[str, object] = {}
    aliases: dict[str, str] = {}
    for node in nodes(sources()):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if literal(node.value) is not None:
                found[node.targets[0].id] = literal(node.value)
        elif isinstance(node, ast.ImportFrom):
            aliases |= {name.asname: name.name for name in node.names if name.asname}
    return found | {alias: found[name] for alias, name in aliases.items() if name in found}


def rows(text: str, columns: int) -> list[list[str]]:
    """The cells of every table row with so many columns."""
    lines = [line.strip()[1:-1] for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [row for row in cells if len(row) == columns]


def ticked(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def snippets(page: Path) -> list[str]:
    """What a reader may type: code spans, and the lines of code blocks."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.S | re.M)
    spans = ticked(re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M))
    return [*spans, *(line for block in blocks for line in block.splitlines())]


def served(resolver: URLResolver, prefix: str = "") -> Iterator[str]:
    """The paths that our own views answer."""
    for item in resolver.url_patterns:
        path = prefix + str(item.pattern)
        if isinstance(item, URLResolver):
            yield from served(item, path)
        elif _is_ours(item, path):
            yield "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def _is_ours(item: URLPattern, path: str) -> bool:
    """Ninja's own page at ``v1/`` only exists so that its addresses have a root."""
    ours = item.callback.__module__.startswith("gateway") or path.startswith("v1/")
    return ours and path != "v1/"


def test_the_documented_routes_are_those_that_are_served() -> None:
    routes = {cell.split()[-1] for row in rows(API, 2) for cell in ticked(row[0]) if " /" in cell}
    assert len(routes) >= 6
    assert routes == set(served(get_resolver()))


def test_every_field_of_a_request_is_documented() -> None:
    named = {name.partition(".")[0] for row in rows(API, 3) for name in ticked(row[0])}
    assert set(ChatCompletionRequest.model_fields) - named == set()
    messages = {name for row in rows(API, 2) for name in ticked(row[0])}
    assert set(Message.model_fields) - messages == set()
    assert [name for name in VideoConfig.model_fields if f"`{name}`" not in API] == []


def section(page: str, heading: str) -> str:
    """What stands under a heading, without the headings of the same rank that follow."""
    rank = heading.split(" ", maxsplit=1)[0]
    return page.split(f"\n{heading}\n")[1].split(f"\n{rank} ")[0]


@pytest.mark.parametrize(
    ("heading", "body"), [("## Pictures", ImageGenerationBody), ("## Videos", CreateVideo)]
)
def test_every_field_of_a_request_for_media_is_documented(
    heading: str, body: type[ImageGenerationBody | CreateVideo]
) -> None:
    table = section(API, heading).split("\n### ")[0]
    named = {name for row in rows(table, 3) for name in ticked(row[0])}
    assert set(body.model_fields) == named


def test_the_codes_of_a_failed_video_job_are_documented() -> None:
    table = {name for row in rows(section(API, "## Videos"), 2) for name in ticked(row[0])}
    endings = {str(literal(keyword(call, "error_code"))) for call in calls("Ending")}
    known = set(documented_codes())
    assert endings - known - {"None"} == table - known != set()


def test_the_codes_of_the_imagine_socket_are_documented() -> None:
    said = set(ticked(section(API, "## The Imagine socket")))
    refusals = {str(literal(call.args[0])) for call in calls("BadCommand")}
    failures = {str(literal(call.args[0])) for call in calls("failure") if call.args}
    assert "empty_prompt" in refusals
    assert "internal_error" in failures
    assert (refusals | failures) - {"None"} <= said


def test_the_limits_of_attachments_are_documented() -> None:
    most = f"At most {attachments.MAX_PARTS}, {fetch.MAX_BYTES:,} bytes"
    assert most in API
    assert f"{attachments.MAX_TOTAL_BYTES >> 20} MiB together" in API


def documented_codes() -> dict[str, set[tuple[str, str]]]:
    """Code to (status, type), of the rows that name all of their codes."""
    found: dict[str, set[tuple[str, str]]] = {}
    for status, kind, codes, _ in rows(API, 4):
        if status.isdigit() and "such as" not in codes:
            for code in ticked(codes):
                found.setdefault(code, set()).add((status, kind))
    return found


def kinds_of_upstream_error() -> list[type[UpstreamError]]:
    found = [*vars(errors).values(), *vars(taxonomy).values()]
    kinds = {kind for kind in found if isinstance(kind, type) and issubclass(kind, UpstreamError)}
    return sorted(kinds - {UpstreamError}, key=lambda kind: kind.__name__)


def raised_codes() -> Iterator[tuple[object, object, object]]:
    """(status, type, code) of every error that a client may be answered with."""
    bad = 400, "invalid_request_error"
    for call in calls("ApiError"):
        given = {word.arg: word.value for word in call.keywords}
        kind = literal(given["type_"]) if "type_" in given else bad[1]
        yield literal(call.args[0]), kind, literal(given.get("code"))
    for call in calls("bad_request", "AttachmentError"):
        yield *bad, literal(call.args[1])
    for code in (*attachments._INVALID.values(), *attachments._CODE_OF_FETCH_ERROR.values()):
        yield *bad, code
    contents: list[type[BadContent]] = [BadContent, *BadContent.__subclasses__()]
    for content in contents:
        yield *bad, content.code
    for code in CODES.values():
        yield 429, "rate_limit_error", code
    for field in VideoConfig.model_fields:
        yield *bad, f"invalid_{field}"
    for rule in calls("FileRule"):
        yield *bad, literal(keyword(rule, "too_many")) or FileRule().too_many
    for code in ("invalid_link", "link_expired"):
        yield 403, "permission_error", code
    for unavailable in ("storage_full", "storage_failed", QueueFull().code):
        yield 503, "server_error", unavailable
    for error in kinds_of_upstream_error():
        yield error.status, error.type, error.code


def test_the_table_of_errors_is_what_the_code_raises() -> None:
    documented = documented_codes()
    raised = {found for found in raised_codes() if isinstance(found[0], int) and found[2]}
    assert (429, "rate_limit_error", "rate_limit_exceeded") in raised
    wrong = [
        found
        for found in raised
        if (str(found[0]), found[1]) not in documented.get(str(found[2]), ())
    ]
    assert wrong == []
    assert {str(code) for _, _, code in raised} == set(documented)


def test_the_model_table_is_the_catalogue() -> None:
    table = [tuple(row) for row in rows(API, 6) if row[0].startswith("`")]
    expected = [
        (f"`{m.id}`", m.kind, m.tier, str(m.cost), m.web.mgw_mode if m.web else "", m.xai or "")
        for m in MODELS
    ]
    assert table == expected


EFFECTS = {
    Effect.NONE: "unharmed",
    Effect.RETIRE: "retired: status invalid",
    Effect.COOL_BUCKET: "this bucket cools",
    Effect.COOL_CREDENTIAL: "rests",
    Effect.COOL_TEAM: "rests",
    Effect.BACK_OFF: "backs off",
    Effect.PAUSE: "pauses",
    Effect.SKIP_MODEL: "not asked for this model",
    Effect.PROFILE_UNHEALTHY: "unharmed; see below",
}


def rows_of(kind: type[UpstreamError]) -> set[str]:
    """The rows of the taxonomy that raise ``kind``, or else its nearest ancestor."""
    for ancestor in kind.__mro__:
        if found := {str(row.number) for row in taxonomy.ROWS if row.error is ancestor}:
            return found
    return set()


def test_the_table_of_failures_is_the_taxonomy() -> None:
    table = {row[0].strip("`"): row for row in rows(OPERATIONS, 5) if row[0].startswith("`")}
    assert sorted(table) == [kind.__name__ for kind in kinds_of_upstream_error()]
    for kind in kinds_of_upstream_error():
        _, numbers, effect, retry, client = table[kind.__name__]
        assert set(numbers.split(", ")) == rows_of(kind), kind
        assert effect == EFFECTS[kind.effect], kind
        assert retry == ("no" if not kind.retry else "one other" if kind.max_attempts else "yes")
        assert client == f"{kind.status} `{kind.code}`", kind


def test_every_log_line_is_explained() -> None:
    formats = {
        str(literal(call.args[0]))
        for call in calls("info", "warning", "error", "exception")
        if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "logger"
    }
    formats |= {f"{what}: %s" for what in (upkeep.WRITING, upkeep.READING)}
    formats |= {f"{what}: %s" for what in (usage_upkeep.WRITING, usage_upkeep.READING)}
    formats = {found for found in formats if re.search(r"[a-z]{3}", found)}
    assert len(formats) >= 35
    assert {found for found in formats if not re.search(pattern_of(found), OPERATIONS)} == set()


def pattern_of(log_format: str) -> str:
    return ".+?".join(re.escape(part) for part in re.split(r"%(?:\.\d+)?[sdr]", log_format))


def test_how_long_things_rest_is_documented() -> None:
    policy = PoolPolicy()
    lasts = {row[0]: row[1] for row in rows(OPERATIONS, 3)}
    assert f"else {policy.bucket_cooldown / 60:.0f} minutes" in lasts["this bucket cools"]
    assert f"else {policy.balance_cooldown / 3600:.0f} hours" in lasts["rests (no balance)"]
    assert lasts["backs off"].startswith(f"{policy.back_off:.0f} seconds")
    assert f"up to {policy.back_off_max / 60:.0f} minutes" in lasts["backs off"]
    assert lasts["pauses"] == f"{policy.pause:.0f} seconds"
    assert lasts["not asked for a model"].startswith(f"{policy.skip_model / 3600:.0f} hours")


def read_variables() -> set[str]:
    readers = calls("env_bool", "env_int", "env_list", "env_secret")
    plain = (call for call in calls("get") if ast.unparse(call.func) == "os.environ.get")
    named = constants()
    names = (call.args[0] for call in (*readers, *plain))
    return {str(literal(name) or named[ast.unparse(name)]) for name in names}


def test_the_process_variables_are_those_that_are_read() -> None:
    table = CONFIGURATION.split("## Process settings")[1].split("\n## ")[0]
    documented = {row[0].strip("`"): row[2] for row in rows(table, 3) if row[0].startswith("`")}
    assert "SERVER_PORT" in documented
    assert set(documented) == read_variables()
    for call in calls("env_secret"):
        name = str(literal(call.args[0]))
        assert f"`{name}_FILE`" in documented[name]


def test_the_variables_of_traces_and_metrics_are_documented() -> None:
    module = Path(tracing.__file__).read_text(encoding="utf-8")
    read = set(re.findall(r'"(OTEL_[A-Z_]+[A-Z])"', module))
    assert set(tracing.ENDPOINTS + tracing.PROTOCOLS) < read
    section = CONFIGURATION.split("## Process settings")[1].split("\n## ")[0]
    assert {name for name in (*read, slots.VARIABLE) if f"`{name}`" not in section} == set()
    assert f"Only `{tracing.SPOKEN}`" in section


def test_every_setting_and_its_variable_is_documented() -> None:
    names = [name for key in KEYS.values() for name in (key.name, key.env_name)]
    assert [name for name in names if f"`{name}`" not in CONFIGURATION] == []


def test_settings_without_effect_are_said_to_have_none() -> None:
    """A setting counts as used where ``section.name`` is read outside the configuration."""
    code = "\n".join(sources())
    unused = {
        key
        for key, described in KEYS.items()
        if not described.unused and not re.search(rf"\b{re.escape(key)}\b", code)
    }
    section = CONFIGURATION.split("<!-- waiting -->")[1].split("<!-- end of waiting -->")[0]
    assert set(ticked(section)) == unused


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_settings_that_are_named_exist_with_the_defaults_that_are_given(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = rf"`((?:{'|'.join(SECTIONS)})\.(?!json)[a-z_]+)(?: = [^`]*)?`(?: \((\d+|`\w+`)\))?"
    for name, default in re.findall(named, text):
        assert name in KEYS, name
        assert not default or default.strip("`") == str(KEYS[name].default), name


def series_in_the_code() -> dict[str, tuple[object, ...]]:
    """The labels of every series, by its name."""
    found: dict[str, tuple[object, ...]] = {}
    for call in calls("Counter", "Gauge", "Histogram", "GaugeMetricFamily"):
        name = str(literal(call.args[0])) if call.args else ""
        if name.startswith("grok2api_"):
            found[name] = texts(call.args[2]) if len(call.args) > 2 else ()
    return found


def test_the_table_of_series_is_what_is_counted() -> None:
    table = {row[0].strip("`"): row for row in rows(API, 3) if row[0].startswith("`grok2api_")}
    labels = {name: tuple(ticked(row[1])) for name, row in table.items()}
    assert labels.pop("grok2api_build_info") == ("version", "python")
    assert len(labels) >= 16
    assert labels == series_in_the_code()


def test_the_values_of_labels_are_documented() -> None:
    table = {row[0].strip("`"): row[2] for row in rows(API, 3) if row[0].startswith("`grok2api_")}
    assert ticked(table["grok2api_pool_credentials"]) == list(census.STATES)
    for argument, name in (("queues", "queue_depth"), ("dropped", "queue_dropped_total")):
        given = [keyword(call, argument) for call in calls("Readings")]
        keys = [node.keys for node in given if isinstance(node, ast.Dict)]
        assert [set(map(literal, each)) for each in keys] == [
            set(ticked(table[f"grok2api_{name}"]))
        ]


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_series_that_are_named_exist(page: Path) -> None:
    known = {*series_in_the_code(), "grok2api_build_info"}
    named = re.findall(r"\bgrok2api_\w+", " ".join(snippets(page)))
    assert {name.removesuffix("_count") for name in named} - known == set()


def test_what_a_worker_owns_is_documented() -> None:
    section = ARCHITECTURE.split("## What a worker owns")[1].split("\n## ")[0]
    table = [row for row in rows(section, 3) if row[0].startswith("`")]
    owned = (literal(call.args[1]) for call in calls("_own") if len(call.args) == 2)
    tasks = {name for name in owned if name is not None}
    assert {name for row in table for name in ticked(row[0])} == tasks
    pools = [keyword(call, "thread_name_prefix") for call in calls("ThreadPoolExecutor")]
    threads = {str(literal(name)) for name in pools}
    assert {name for name in threads if f"`{name}`" not in section} == set()


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_files_that_are_named_exist(page: Path) -> None:
    for span in snippets(page):
        named = rf"(?:(?:{'|'.join(PACKAGES)}|tests|docs|bench|requirements|\.ci)/[\w/.-]+)"
        if match := re.match(rf"({named})(?=$|[:,] )", span):
            assert (ROOT / match[1]).exists(), span


def test_the_operations_of_requests_are_documented() -> None:
    recorded = {literal(call.args[0]) for call in calls("record") if call.args}
    recorded |= {literal(keyword(call, "operation")) for call in calls("Exchange")}
    told = API.split("its `operation` is")[1].split("\n\n")[0]
    assert set(ticked(told)) == recorded - {None} | {imagine_round.OPERATION}


def test_the_ends_of_requests_are_documented() -> None:
    section = OPERATIONS.split("\n## The ledger")[1].split("\n## ")[0]
    assert [ticked(row[0]) for row in rows(section, 2)[1:]] == [[end.value] for end in End]


def test_the_limits_of_client_keys_are_documented() -> None:
    table = [row for row in rows(OPERATIONS, 4) if row[1].startswith("`--")]
    assert [ticked(row[2]) for row in table] == [[code] for code in CODES.values()]
    assert table[-1][3] == f"{WHEN_BUSY:.0f} second"
    offset = next(row for row in rows(CONFIGURATION, 3) if day.RESET_OFFSET in row[0])
    assert offset[1] == f"`{day.offset_of('')}`"
    assert f"from {day.offset_of('-9999')} to {day.offset_of('9999')}" in offset[2]
    assert f"{CAPACITY:,} keys with limits" in OPERATIONS


def test_the_sources_of_quota_numbers_are_documented() -> None:
    section = OPERATIONS.split("\n## Quota numbers")[1].split("\n## ")[0]
    named = {row[0] for row in rows(section, 2)}
    assert {str(source.label) for source in BucketQuota.Source} <= named
    for kind in Kind:
        assert f"`{kind.value}`" in section
    assert f"| {INTERRUPTED} | interrupted" in section


SOONEST, LATEST = quota_sync.AFTER_USE
NUMBERS = [
    (OPERATIONS, f"{SOONEST:.0f} to {LATEST:.0f} seconds after a use"),
    (OPERATIONS, f"spread over up to {'ten' if quota_sync.SPREAD == 600 else '?'} minutes"),
    (OPERATIONS, f"for {query_pauses.FIRST_PAUSE:.0f} seconds, doubling"),
    (OPERATIONS, f"up to {query_pauses.LONGEST_PAUSE / 60:.0f} minutes."),
    (OPERATIONS, f"the last {USAGE_DAYS} days"),
    (OPERATIONS, f"{leadership.TTL:.0f} seconds in the database"),
    (OPERATIONS, f"renewed every {leadership.RENEWAL:.0f}"),
    (OPERATIONS, f"After {store.DEAD_AFTER:.0f} seconds those count as ended"),
    (OPERATIONS, f"not been heard of for {store.DEAD_AFTER:.0f} seconds"),
    (OPERATIONS, f"by hour for {HOURS_KEPT.days} days"),
    (OPERATIONS, f"`--batch` ({BATCH})"),
    (ARCHITECTURE, f"that beats (every {store.BEAT_EVERY:.0f} seconds)"),
    (ARCHITECTURE, f"After {store.DEAD_AFTER:.0f} seconds without a beat"),
    (DEPLOYMENT, f"up to {2 * store.AT_ONCE} connections"),
    (API, f"counted every {census.EVERY:.0f} seconds"),
    (API, f"at most {PACE.silence:.0f} seconds without a byte"),
    (API, f"at least {PACE.least >> 10} KiB per second"),
    (API, f"at most {image_chat.MAX_INPUT_BYTES // MIB} MiB each in a form"),
    (API, f'`grok.media_protocol = "current"` | {edits.MAX_INPUTS} |'),
    (API, f'`grok.rest_form = "mode_id"` | {edits.MAX_POSTED_INPUTS} |'),
    (API, f"with `model_name` | {edits.MAX_LEGACY_INPUTS} |"),
    (API, f"| {MAX_EDITED}, of {MAX_INPUT_BYTES // MIB} MiB each"),
    (API, f"may have {sockets.PER_VISITOR} sockets in one worker"),
    (API, f"a worker {sockets.IN_ALL} in all"),
    (API, f"a session every {admission.SESSION_RECHECK})"),
    (API, f"a frame above {imagine.MAX_FRAME // 1024} KiB"),
    (API, f"after {imagine_run.NOTHING_FREE:.0f} seconds when nothing is free"),
    (API, f"after {imagine_run.FIRST_PAUSE} seconds, doubling up"),
    (API, f"doubling up to {imagine_run.LONGEST_PAUSE:.0f}."),
    (API, f"With {video_jobs.MOST_WAITING:,} unfinished ones"),
    (API, f"at most {MAX_PROMPT:,} characters"),
    (API, f"for {video_table.KEPT.total_seconds() / 3600:.0f} hours after its end"),
    (API, f"more than {checks.MAX_PIXELS // 1_000_000} megapixels"),
    (API, f"png, jpeg, webp or gif, at most {MAX_BYTES['image'] // MIB} MiB"),
    (OPERATIONS, f"Every {housekeeping.CLEAN_EVERY:.0f} seconds one process"),
    (OPERATIONS, f"down to {housekeeping.CLEAN_TO:.0%}".replace("%", " %")),
    (OPERATIONS, f"less than {RESERVE // MIB} MiB of the disk"),
    (OPERATIONS, f"it took nothing for {STALLED:.0f} seconds"),
    (OPERATIONS, f"taken over after {video_table.STALE:.0f} seconds"),
]


@pytest.mark.parametrize(("page", "said"), NUMBERS, ids=[said for _, said in NUMBERS])
def test_a_number_that_is_given_is_that_of_the_code(page: str, said: str) -> None:
    assert said in page.replace("\n", " ").replace("  ", " ")


def test_the_newest_change_is_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    match = re.search(r"^## (\S+)", changelog, re.M)
    assert match is not None
    assert match.group(1) == __version__


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have where it is shown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    scripts = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".ci").iterdir())
    named = [*(line for page in PAGES for line in snippets(page)), *scripts.splitlines()]
    found = {match[1] for line in named if (match := re.match(r"(?:\S+=\S+ )*make ([a-z]+)", line))}
    assert {"demo", "test", "run", "lint", "bench"} <= found
    assert found <= targets


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_that_are_named_exist_with_their_options(page: Path) -> None:
    known = get_commands()
    for line in snippets(page):
        match = re.search(r'manage\.py ([a-z_]+)|manage\.py "\$@".* manage ([a-z_]+)', line)
        if match is None:
            continue
        name = match[1] or match[2]
        assert name in known, line
        command = load_command_class(known[name], name)
        options = command.create_parser("manage.py", name)._option_string_actions
        used = re.findall(r"(?<!\S)--[a-z-]+", line[match.end() :].split("#")[0])
        assert set(used) <= set(options), line


def test_every_option_of_our_commands_is_documented() -> None:
    usual = set(BaseCommand().create_parser("", "")._option_string_actions)
    typed = " ".join(line for page in PAGES for line in snippets(page))
    for name, app in get_commands().items():
        if app in PACKAGES:
            command = load_command_class(app, name)
            options = set(command.create_parser("", name)._option_string_actions) - usual
            assert {option for option in options if option not in typed.split()} == set(), name


def test_both_readmes_name_the_same_commands() -> None:
    def commands(name: str) -> list[str]:
        blocks = re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.S)
        lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
        return [line for line in lines if '"content"' not in line]

    english, chinese = commands("README.md"), commands("README.zh-CN.md")
    assert english == chinese
    assert [line for line in english if line.startswith("make")][:2] == ["make demo", "make test"]


def test_the_boundary_is_in_the_readme() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    assert ("The boundary", "More") in pairwise(headings)


def test_the_example_of_a_test_is_one(sandbox: SandboxThread) -> None:
    example = ARCHITECTURE.split("```python\n")[1].split("```")[0]
    space: dict[str, Callable[[SandboxThread], None]] = {}
    exec(compile(example, "docs/architecture.md", "exec"), space)  # noqa: S102
    tests = [made for name, made in space.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0](sandbox)
