"""The configuration in force in this process, kept up to date with file and panel."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error as DatabaseFailed

from gateway.conf import toml_file
from gateway.conf.environment import read_secret_files
from gateway.conf.errors import ConfigError, SettingsRejected, printable
from gateway.conf.keys import KEYS, env_name
from gateway.conf.layers import Resolved, resolve, unknown_setting
from gateway.conf.saved import DatabaseStore, SettingsStore
from gateway.conf.schema import Config
from gateway.conf.toml_file import TomlFile

logger = logging.getLogger(__name__)

Callback = Callable[[Config, Config], None]

SETTLE_SEC = 0.25
"""A file younger than this may still be being written; it is read at the next look."""

MAX_KEY = 200
"""Characters of a key in the database."""


def _storable(value: object) -> bool:
    """Whether every database takes ``value`` as JSON: no NaN, NUL or half characters."""
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return "\\u0000" not in text


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of all layers that can change, and what they resolve to."""

    resolved: Resolved
    file: TomlFile = field(default_factory=TomlFile)
    saved_stamp: object = None
    saved: Mapping[str, Any] = field(default_factory=dict, repr=False)


class LiveConfig:
    """Holds the defaults until ``load``; ``watch`` and ``save`` replace the whole snapshot.

    ``clock`` gives the seconds that file times are compared with.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._snapshot = Snapshot(resolve({}, {}, {}))
        self._config = self._snapshot.resolved.config
        self._env: Mapping[str, str] = {}
        self._path: Path | None = None
        self._store: SettingsStore | None = None
        self._callbacks: list[Callback] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._passed_over: dict[str, object] = {}
        self._reported: set[str] = set()

    def current(self) -> Config:
        return self._config

    @property
    def resolved(self) -> Resolved:
        """The configuration with the source of each value."""
        return self._snapshot.resolved

    def load(
        self,
        data_dir: Path,
        env: Mapping[str, str] | None = None,
        store: SettingsStore | None = None,
    ) -> Resolved:
        """Read every layer, making ``data_dir/config.toml`` first if it is missing.

        Without ``store``, the database, whose tables must be there. Raises ConfigError
        naming every problem; then nothing has changed.
        """
        path = data_dir / toml_file.FILE_NAME
        try:
            toml_file.create(path)
        except OSError as error:
            logger.warning("%s cannot be created: %s", path, error.strerror)
        variables, problems = read_secret_files(os.environ if env is None else env)
        file, wrong = toml_file.read(path)
        store = store or DatabaseStore()
        stamp, saved = store.stamp(), store.read()
        resolved = resolve(
            variables, saved, file.values, origin=file.origin, earlier=[*problems, *wrong]
        )
        self._env, self._path, self._store = variables, path, store
        self._passed_over.clear()
        self._publish(Snapshot(resolved, file, stamp, saved))
        return resolved

    async def aload(
        self,
        data_dir: Path,
        env: Mapping[str, str] | None = None,
        store: SettingsStore | None = None,
    ) -> Resolved:
        return await sync_to_async(self.load)(data_dir, env, store)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Have ``callback(old, new)`` called after each change; call the result to stop.

        While ``watch`` runs, callbacks run in its event loop, otherwise where the change
        was made.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def watch(
        self,
        poll_sec: float = 1.0,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Until cancelled, apply changes of the file and of the saved settings.

        What cannot be used is reported once and passed over: the last good values stay.
        """
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                await sleep(poll_sec)
                await self.refresh()
        finally:
            self._loop = None

    async def refresh(self) -> bool:
        """Look once for changes and apply them; whether there were any."""
        found = await sync_to_async(self._changed)()
        if found is not None:
            self._publish(found)
        return found is not None

    def save(self, values: Mapping[str, Any], by: str) -> Resolved:
        """Save dotted keys with JSON values for user ``by``, all of them or none.

        Raises SettingsRejected with a reason per key: unknown, of the wrong type or range,
        or fixed by the environment. In force here on return, elsewhere within 2 s.
        """
        store = self._loaded_store()
        self._refuse(values)
        store.write(values, by)
        return self._apply()

    async def asave(self, values: Mapping[str, Any], by: str) -> Resolved:
        return await sync_to_async(self.save)(values, by)

    def unset(self, keys: Iterable[str]) -> Resolved:
        """Forget saved values, so that file or default are in force again."""
        self._loaded_store().delete(keys)
        return self._apply()

    async def aunset(self, keys: Iterable[str]) -> Resolved:
        return await sync_to_async(self.unset)(keys)

    def _loaded_store(self) -> SettingsStore:
        if self._store is None:
            raise RuntimeError("the configuration has not been loaded")
        return self._store

    def _refuse(self, values: Mapping[str, Any]) -> None:
        errors: dict[str, str] = {}
        for key in values:
            if key not in KEYS and not key.startswith("register."):
                errors[key] = unknown_setting(key)
            elif len(key) > MAX_KEY:
                errors[key] = "the name is too long"
            elif key in KEYS and self.resolved.source_of(key) == "environment":
                errors[key] = f"is set by the environment variable {env_name(key)}"
            elif not _storable(values[key]):
                errors[key] = "cannot be stored as JSON"
        try:
            resolve({}, {k: v for k, v in values.items() if k not in errors}, {})
        except ConfigError as error:
            for problem in error.problems:
                errors.setdefault(problem.key, problem.reason)
        if errors:
            raise SettingsRejected(errors)

    def _apply(self) -> Resolved:
        found = self._changed()
        if found is not None:
            self._publish(found)
        return self.resolved

    def _changed(self) -> Snapshot | None:
        """The state of the layers now; None when it is the one in force."""
        before = self._snapshot
        file = self._file_now(before.file)
        stamp, saved = self._saved_now(before)
        if file is before.file and stamp == before.saved_stamp:
            return None
        resolved = resolve(self._env, saved, file.values, origin=file.origin)
        return Snapshot(resolved, file, stamp, saved)

    def _file_now(self, before: TomlFile) -> TomlFile:
        if self._path is None:
            return before
        try:
            stamp = toml_file.stamp_of(self._path)
        except OSError as error:
            self._pass_over("file", error.errno, f"{self._path}: {error.strerror}")
            return before
        if stamp == before.stamp or self._passed_over.get("file", ()) == stamp:
            return before
        if stamp is None:
            self._pass_over("file", stamp, f"{self._path} is gone")
            return before
        if 0 <= self._clock() - stamp.modified_ns / 1e9 < SETTLE_SEC:
            return before
        file, problems = toml_file.read(self._path)
        try:
            resolve({}, {}, file.values, origin=file.origin, earlier=problems)
        except ConfigError as error:
            self._pass_over("file", stamp, str(error))
            return before
        self._passed_over.pop("file", None)
        return file

    def _saved_now(self, before: Snapshot) -> tuple[object, Mapping[str, Any]]:
        unchanged = (before.saved_stamp, before.saved)
        if self._store is None:
            return unchanged
        try:
            stamp = self._store.stamp()
            self._passed_over.pop("database", None)
            if stamp == before.saved_stamp or self._passed_over.get("saved", ()) == stamp:
                return unchanged
            saved = self._store.read()
            resolve(self._env, saved, {})
        except DatabaseFailed as error:
            self._pass_over("database", None, f"the database failed: {type(error).__name__}")
            return unchanged
        except ConfigError as error:
            self._pass_over("saved", stamp, str(error))
            return unchanged
        self._passed_over.pop("saved", None)
        return stamp, saved

    def _pass_over(self, layer: str, state: object, why: str) -> None:
        if self._passed_over.get(layer, ()) != state:
            self._passed_over[layer] = state
            logger.warning("configuration left as it was: %s", why)

    def _publish(self, snapshot: Snapshot) -> None:
        old, new = self._config, snapshot.resolved.config
        self._snapshot, self._config = snapshot, new
        self._report_not_used(snapshot.resolved.not_used)
        if old == new:
            return
        for callback in tuple(self._callbacks):
            if self._loop is None:
                callback(old, new)
            else:
                self._loop.call_soon_threadsafe(callback, old, new)

    def _report_not_used(self, names: Iterable[str]) -> None:
        fresh = [name for name in names if name not in self._reported]
        if fresh:
            self._reported.update(fresh)
            logger.warning("settings kept but not used: %s", ", ".join(map(printable, fresh)))
