"""``manage.py refresh_quota``: ask upstream now what is left, whether the service runs or not."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from gateway import conf
from gateway.relay.quota_refresh import RefreshProcess, Tally
from pool import roster
from pool.checks import has_tables, verify_secret_key
from pool.crypto import WrongKey
from pool.entries import Entry
from pool.models import BucketQuota, Credential, Kind, Status

INTERRUPTED = 130
"""The exit code that shells expect after Ctrl-C."""
_SHOW_EVERY = 0.1
_MOST_AT_ONCE = 10_000


class Command(BaseCommand):
    """Exit code 1 when nothing could be refreshed; 130 when it was interrupted."""

    help = str(
        _(
            "Asks upstream what is left of each credential in use; retires those it refuses. "
            "Disabled credentials are never asked about."
        )
    )

    def add_arguments(self, parser: CommandParser) -> None:
        scope = parser.add_mutually_exclusive_group()
        scope.add_argument(
            "--all",
            action="store_true",
            help=str(_("Invalid ones too; one that upstream accepts is active again.")),
        )
        scope.add_argument(
            "--cooling", action="store_true", help=str(_("Only those that rest at present."))
        )
        parser.add_argument("--kind", choices=Kind.values, help=str(_("Only of this type.")))
        parser.add_argument(
            "--concurrency",
            type=int,
            help=str(_("Credentials at the same time; else performance.usage_max_concurrent.")),
        )
        parser.add_argument("--json", action="store_true", help=str(_("Report as JSON.")))

    def handle(self, *args: Any, **options: Any) -> None:
        at_once = self._prepare(options["concurrency"])
        ids = wanted_ids(options)
        loaded = {entry.id: entry for entry in roster.load_ids(ids)}
        entries = [loaded[number] for number in ids if number in loaded]
        began = time.monotonic()
        with self._progress(began) as progress:
            run = _Run(entries, at_once, progress)
            asyncio.run(run.run())
        seconds = time.monotonic() - began
        if options["json"]:
            self.stdout.write(json.dumps(_as_dict(run, seconds)))
        else:
            self._summarise(run, seconds)
        self._judge(run)

    def _prepare(self, concurrency: int | None) -> int:
        """Load what is needed; gives how many are asked about at once. Raises CommandError."""
        if concurrency is not None and not 1 <= concurrency <= _MOST_AT_ONCE:
            raise CommandError(_("--concurrency must be from 1 to %d") % _MOST_AT_ONCE)
        try:
            if not has_tables():
                raise CommandError(
                    _("The database has no tables yet: run manage.py migrate first.")
                )
            config = conf.live.load(settings.DATA_DIR).config
            verify_secret_key()
        except (conf.ConfigError, WrongKey) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(f"The database cannot be used: {error}") from error
        return concurrency or config.performance.usage_max_concurrent

    @contextmanager
    def _progress(self, began: float) -> Iterator[Callable[[Tally], None]]:
        """A running count on stderr while somebody is watching it."""
        shown = 0.0

        def show(tally: Tally) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown >= _SHOW_EVERY or tally.done == tally.total:
                shown = now
                line = _progress_line(tally, now - began)
                self.stderr.write(f"\r{line}\x1b[K", style_func=str, ending="")
                self.stderr.flush()

        if not self.stderr.isatty():
            yield lambda tally: None
            return
        yield show
        self.stderr.write("", style_func=str)

    def _summarise(self, run: _Run, seconds: float) -> None:
        tally = run.tally
        line = _(
            "%(done)d of %(total)d credentials in %(seconds).1f s: %(measured)d measured, "
            "%(checked)d API keys in order, %(retired)d retired, %(nothing)d without a usable "
            "answer, %(failed)d failed"
        )
        self.stdout.write(line % (_counts(tally) | {"done": tally.done, "seconds": seconds}))
        if tally.revived:
            self.stdout.write(str(_("%d were invalid and are active again") % tally.revived))
        if tally.skipped:
            self.stdout.write(str(_("%d are gone or cannot be opened") % tally.skipped))
        for name, number in tally.errors.most_common():
            self.stdout.write(f"{name}: {number}")
        if tally.held_back:
            told = _(
                "All that answered refused their credential (%d): that looks like trouble of "
                "upstream, so none was retired."
            )
            self.stdout.write(str(told % tally.held_back))

    def _judge(self, run: _Run) -> None:
        tally = run.tally
        if tally.unsaved:
            raise CommandError(_("%d results could not be written.") % tally.unsaved)
        if run.interrupted:
            where = {"done": tally.done, "total": tally.total}
            text = _("Interrupted after %(done)d of %(total)d.") % where
            raise CommandError(text, returncode=INTERRUPTED)
        if run.hopeless:
            raise CommandError(_("Upstream fails again and again; the rest was not tried."))
        if tally.total and not tally.refreshed:
            raise CommandError(_("Nothing could be refreshed."))


class _Run:
    """One refresh that the first Ctrl-C (or SIGTERM) ends gently and the second at once."""

    def __init__(
        self, entries: Sequence[Entry], at_once: int, progress: Callable[[Tally], None]
    ) -> None:
        self._entries = entries
        self._at_once = at_once
        self._progress = progress
        self.tally = Tally(len(entries))
        self.interrupted = False
        self.hopeless = False

    async def run(self) -> None:
        process = RefreshProcess(
            self._entries, conf.current, at_once=self._at_once, progress=self._progress
        )
        self.tally = process.refresh.tally
        with self._stops_on_signal(process):
            try:
                await process.refresh.run([entry.id for entry in self._entries])
                self.hopeless = process.refresh.is_hopeless
            finally:
                await process.aclose()

    @contextmanager
    def _stops_on_signal(self, process: RefreshProcess) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)

        def stop() -> None:
            self.interrupted = True
            process.refresh.stop()
            for number in numbers:
                loop.remove_signal_handler(number)

        for number in numbers:
            loop.add_signal_handler(number, stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def wanted_ids(options: dict[str, Any]) -> list[int]:
    """The credentials that the options mean, the longest waiting first."""
    rows = Credential.objects.exclude(status=Status.DISABLED)
    if not options["all"]:
        rows = rows.exclude(status=Status.INVALID)
    if options["cooling"]:
        rows = rows.filter(_rests())
    if options["kind"]:
        rows = rows.filter(kind=options["kind"])
    return list(rows.order_by("updated_at", "id").values_list("id", flat=True))


def _rests() -> Q:
    """At rest as a whole, or in some bucket; imported spent buckets have no time."""
    now = timezone.now()
    quotas = BucketQuota.objects.filter(credential=OuterRef("pk"))
    cools = quotas.filter(Q(cooling_until__gt=now) | Q(remaining=0, cooling_until=None))
    return Q(status=Status.COOLING) | Q(resting_until__gt=now) | Q(Exists(cools))


def _progress_line(tally: Tally, seconds: float) -> str:
    numbers = _counts(tally) | {"done": tally.done, "rate": tally.done / max(seconds, 0.001)}
    line = _(
        "%(done)d/%(total)d: %(measured)d measured, %(retired)d retired, %(failed)d failed, "
        "%(rate).0f/s"
    )
    return line % numbers


def _counts(tally: Tally) -> dict[str, Any]:
    names = (
        "total", "measured", "checked", "revived", "retired", "held_back", "nothing", "failed",
        "skipped", "unsaved",
    )  # fmt: skip
    return {name: getattr(tally, name) for name in names}


def _as_dict(run: _Run, seconds: float) -> dict[str, Any]:
    tally = run.tally
    return {
        "done": tally.done,
        **_counts(tally),
        "errors": dict(tally.errors),
        "interrupted": run.interrupted,
        "seconds": round(seconds, 3),
    }
