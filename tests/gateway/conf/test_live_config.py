"""One process's configuration while it changes, with a store in memory."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.conf import Config, ConfigError, LiveConfig, SettingsRejected, current, live
from tests.gateway.conf.stores import MemoryStore

LATER = 10_000_000_000.0
"""A clock so far on that every file has settled."""


class Scene:
    """A loaded LiveConfig, its store, its file, and the changes it told."""

    def __init__(self, folder: Path, store: MemoryStore, env: dict[str, str]) -> None:
        self.time = LATER
        self.live = LiveConfig(clock=lambda: self.time)
        self.store = store
        self.path = folder / "config.toml"
        self.live.load(folder, env, store)
        self.told: list[tuple[int, int]] = []
        self.live.subscribe(self._note)

    def _note(self, old: Config, new: Config) -> None:
        self.told.append((old.grok.timeout, new.grok.timeout))

    def edit(self, text: str) -> None:
        """As editors do: a new file under the old name."""
        draft = self.path.with_suffix(".new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(self.path)

    @property
    def timeout(self) -> int:
        return self.live.current().grok.timeout


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, MemoryStore(), {"GROK2API_POOL__POLICY": "api_only"})


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


async def test_it_works(scene: Scene) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    assert await scene.live.refresh()
    assert scene.timeout == 7
    assert scene.told == [(120, 7)]
    assert not await scene.live.refresh()


def test_before_loading_the_defaults_are_in_force() -> None:
    fresh = LiveConfig()
    assert fresh.current() == Config()
    with pytest.raises(RuntimeError, match="not been loaded"):
        fresh.save({"grok.timeout": 5}, by="alice")


def test_the_package_has_one_instance() -> None:
    assert isinstance(live, LiveConfig)
    assert current() is live.current()


def test_loading_makes_the_file(scene: Scene) -> None:
    assert "[grok]" in scene.path.read_text(encoding="utf-8")


async def test_loading_works_from_an_event_loop_too(tmp_path: Path) -> None:
    loaded = LiveConfig()
    resolved = await loaded.aload(tmp_path, {"GROK2API_GROK__TIMEOUT": "9"}, MemoryStore())
    assert resolved.source_of("grok.timeout") == "environment"
    assert loaded.current().grok.timeout == 9


def test_loading_reads_secret_files(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n", encoding="utf-8")
    loaded = LiveConfig()
    loaded.load(tmp_path, {"GROK2API_METRICS__TOKEN_FILE": str(secret)}, MemoryStore())
    assert loaded.current().metrics.token == "s3cret"


def test_loading_tells_all_problems_and_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[grok]\ntimeout = 0\n", encoding="utf-8")
    fresh = LiveConfig()
    env = {"GROK2API_METRICS__TOKEN_FILE": str(tmp_path / "none"), "GROK2API_POOL__X": "1"}
    with pytest.raises(ConfigError) as caught:
        fresh.load(tmp_path, env, MemoryStore(pool__policy="best"))
    assert [problem.key for problem in caught.value.problems] == [
        "GROK2API_METRICS__TOKEN_FILE",
        "GROK2API_POOL__X",
        "pool.policy",
        "grok.timeout",
    ]
    assert fresh.current() == Config()


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, warnings: Callable[[], list[str]]
) -> None:
    (tmp_path / "file").touch()
    fresh = LiveConfig()
    with pytest.raises(ConfigError, match="Not a directory"):
        fresh.load(tmp_path / "file", {}, MemoryStore())
    assert len(warnings()) == 1


async def test_rows_changed_by_another_worker_are_noticed(scene: Scene) -> None:
    scene.store.write({"grok.timeout": 11}, by="bob")
    await scene.live.refresh()
    assert (scene.timeout, scene.live.resolved.source_of("grok.timeout")) == (11, "panel")


async def test_nothing_is_read_while_nothing_changes(scene: Scene) -> None:
    before = scene.store.reads
    for _ in range(5):
        assert not await scene.live.refresh()
    assert scene.store.reads == before


async def test_a_broken_edit_keeps_the_last_good_values_and_is_told_once(
    scene: Scene, warnings: Callable[[], list[str]]
) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    await scene.live.refresh()
    scene.edit("[grok]\ntimeout = 'x'\n")
    for _ in range(3):
        await scene.live.refresh()
    assert scene.timeout == 7
    [warning] = warnings()
    assert f"{scene.path}, line 2, grok.timeout: must be a whole number" in warning
    scene.edit("[grok]\ntimeout = 8\n")
    await scene.live.refresh()
    assert (scene.timeout, len(warnings())) == (8, 1)


async def test_the_panel_works_while_the_file_is_broken(scene: Scene) -> None:
    scene.edit("[grok]\ntimeout = 7\nmax_retry = 1\n")
    await scene.live.refresh()
    scene.edit("[grok\n")
    scene.live.save({"grok.timeout": 20}, by="alice")
    assert (scene.timeout, scene.live.current().grok.max_retry) == (20, 1)
    scene.live.unset(["grok.timeout"])
    assert scene.timeout == 7


async def test_a_file_that_disappears_is_told_once_and_its_values_stay(
    scene: Scene, warnings: Callable[[], list[str]]
) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    await scene.live.refresh()
    scene.path.unlink()
    for _ in range(3):
        assert not await scene.live.refresh()
    assert (scene.timeout, len(warnings())) == (7, 1)
    assert "is gone" in warnings()[0]


async def test_a_file_still_being_written_is_read_at_the_next_look(scene: Scene) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    os.utime(scene.path, (LATER, LATER))
    scene.time = LATER + 0.1
    assert not await scene.live.refresh()
    scene.time = LATER + 1.1
    assert await scene.live.refresh()
    assert scene.timeout == 7


async def test_a_file_from_the_future_is_read(scene: Scene) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    os.utime(scene.path, (LATER + 60, LATER + 60))
    assert await scene.live.refresh()


async def test_a_bad_row_keeps_the_last_good_rows(
    scene: Scene, warnings: Callable[[], list[str]]
) -> None:
    scene.live.save({"grok.timeout": 20}, by="alice")
    scene.store.write({"grok.timeout": -1, "grok.max_retry": 9}, by="someone in SQL")
    for _ in range(3):
        await scene.live.refresh()
    assert (scene.timeout, scene.live.current().grok.max_retry, len(warnings())) == (20, 3, 1)


async def test_an_outage_of_the_database_is_told_once_each_time(
    scene: Scene, warnings: Callable[[], list[str]]
) -> None:
    for _ in range(2):
        scene.store.down = True
        for _ in range(3):
            assert not await scene.live.refresh()
        scene.store.down = False
        await scene.live.refresh()
    assert warnings() == ["configuration left as it was: the database failed: OperationalError"] * 2


async def test_the_file_is_followed_during_an_outage_of_the_database(scene: Scene) -> None:
    scene.store.down = True
    scene.edit("[grok]\ntimeout = 7\n")
    assert await scene.live.refresh()
    assert scene.timeout == 7


async def test_keys_that_are_not_used_are_told_once(
    scene: Scene, warnings: Callable[[], list[str]]
) -> None:
    for number in (1, 2, 3):
        scene.edit(f"[grok]\ndynamic_statsig = true\n[register]\nthreads = {number}\n")
        await scene.live.refresh()
    assert warnings() == ["settings kept but not used: grok.dynamic_statsig, register.threads"]


def test_what_is_saved_is_in_force_at_once(scene: Scene) -> None:
    resolved = scene.live.save({"grok.timeout": 33, "models.aliases": {"a": "b"}}, by="alice")
    assert (scene.timeout, resolved.source_of("grok.timeout")) == (33, "panel")
    assert scene.store.rows == {"grok.timeout": 33, "models.aliases": {"a": "b"}}
    assert scene.store.writers == ["alice"]
    assert scene.told == [(120, 33)]


def test_saving_is_all_or_nothing(scene: Scene) -> None:
    values = {
        "grok.timeout": 5,
        "grok.max_retry": "3",
        "grok.steam": True,
        "pool.policy": "web_only",
        "server.cors_origins": ["*", "x"],
        "register." + "x" * 200: 1,
        "register.odd": float("nan"),
        "register.nul": "\0",
        "register.half": "\ud800",
        "register.thing": object(),
    }
    with pytest.raises(SettingsRejected) as caught:
        scene.live.save(values, by="alice")
    assert caught.value.errors == {
        "grok.max_retry": "must be a whole number, not text",
        "grok.steam": "unknown setting; did you mean grok.stream?",
        "pool.policy": "is set by the environment variable GROK2API_POOL__POLICY",
        "server.cors_origins": "must be an address such as https://host:port",
        "register." + "x" * 200: "the name is too long",
        "register.odd": "cannot be stored as JSON",
        "register.nul": "cannot be stored as JSON",
        "register.half": "cannot be stored as JSON",
        "register.thing": "cannot be stored as JSON",
    }
    assert (scene.timeout, scene.store.rows, scene.told) == (120, {}, [])


def test_old_register_keys_can_be_saved_and_stay_unused(scene: Scene) -> None:
    resolved = scene.live.save({"register.solver_url": "http://x"}, by="alice")
    assert scene.store.rows == {"register.solver_url": "http://x"}
    assert resolved.not_used == ("register.solver_url",)


async def test_unsetting_uncovers_the_layer_below(scene: Scene) -> None:
    scene.edit("[grok]\ntimeout = 7\n")
    await scene.live.refresh()
    await scene.live.asave({"grok.timeout": 33}, by="alice")
    resolved = await scene.live.aunset(["grok.timeout", "never.there"])
    assert (scene.timeout, resolved.source_of("grok.timeout")) == (7, "file")


def test_a_listener_can_leave(scene: Scene) -> None:
    heard: list[int] = []
    leave = scene.live.subscribe(lambda old, new: heard.append(new.grok.timeout))
    scene.live.save({"grok.timeout": 5}, by="alice")
    leave()
    scene.live.save({"grok.timeout": 6}, by="alice")
    assert heard == [5]


def test_listeners_do_not_hear_of_a_change_that_changes_nothing(scene: Scene) -> None:
    scene.live.save({"grok.timeout": 120}, by="alice")
    assert scene.told == []
    assert scene.live.resolved.source_of("grok.timeout") == "panel"


class Pulse:
    """A sleep that ends when the test says so; it notes how long it was asked to take."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.begun.set()
        await self.go.wait()
        self.go.clear()

    async def beat(self) -> None:
        """Let one look happen, and wait until it is over."""
        await self.begun.wait()
        self.begun.clear()
        self.go.set()
        await self.begun.wait()


async def test_the_watch_applies_changes_and_ends_when_cancelled(scene: Scene) -> None:
    pulse = Pulse()
    watching = asyncio.create_task(scene.live.watch(0.5, sleep=pulse.sleep))
    await pulse.beat()
    scene.store.write({"grok.timeout": 44}, by="bob")
    await pulse.beat()
    assert (scene.timeout, set(pulse.asked)) == (44, {0.5})
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_listeners_run_in_the_loop_that_watches(scene: Scene) -> None:
    pulse = Pulse()
    loops: list[asyncio.AbstractEventLoop] = []
    scene.live.subscribe(lambda old, new: loops.append(asyncio.get_running_loop()))
    watching = asyncio.create_task(scene.live.watch(sleep=pulse.sleep))
    await pulse.beat()
    await asyncio.to_thread(scene.live.save, {"grok.timeout": 55}, "alice")
    await pulse.beat()
    assert loops == [asyncio.get_running_loop()]
    watching.cancel()
    await asyncio.wait([watching])


async def test_a_listener_that_fails_does_not_end_the_watch(scene: Scene) -> None:
    pulse = Pulse()
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: failures.append(context.get("exception"))
    )

    def fail(old: Config, new: Config) -> None:
        raise KeyError("listener")

    scene.live.subscribe(fail)
    watching = asyncio.create_task(scene.live.watch(sleep=pulse.sleep))
    for number in (61, 62):
        scene.store.write({"grok.timeout": number}, by="bob")
        await pulse.beat()
    assert scene.timeout == 62
    assert [type(failure) for failure in failures] == [KeyError, KeyError]
    watching.cancel()
    await asyncio.wait([watching])
