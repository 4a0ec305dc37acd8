"""``python -m bench.ledger``: what the ledger's writing and its queries cost at a million rows.

Fills an empty database with 30 days of requests, then asks every query of the operator's
pages. SQLite in a directory of its own, or the database of ``SERVER_STORAGE_TYPE`` and
``SERVER_STORAGE_URL``, which must not have a record of requests.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import django

from gateway.exchange import Attempt, End, Exchange

DAYS, MODELS, KEYS, CREDENTIALS = 30, 40, 50, 200
NOW = datetime.now(UTC)
BEGIN = NOW - timedelta(days=DAYS)
ENDS = [End.COMPLETED] * 90 + [End.FAILED] * 4 + [End.BROKEN, End.CLIENT_GONE] + [End.REFUSED] * 4
ERRORS = ("upstream_error", "rate_limit_exceeded", "upstream_timeout", "server_overloaded")
WANTED = 0.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-ledger-") as directory:
        os.environ["GROK2API_DATA_DIR"] = directory
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
        django.setup()
        bench(options.records, options.runs, Path(directory))


def bench(count: int, runs: int, directory: Path) -> None:
    from django.core.management import call_command
    from django.db import connection

    from gateway.ledger.models import RequestRecord

    call_command("migrate", verbosity=0)
    if RequestRecord.objects.exists():
        raise SystemExit("this database has a record of requests already")
    fill(count)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")  # autovacuum would, a little later
    print(f"{connection.vendor}: {count} records, {DAYS} days, {MODELS} models, {KEYS} keys")
    for path in directory.glob("*.sqlite3"):
        print(f"{path.stat().st_size / 1e6:.0f} MB")
    print(f"\n{'writing at that size':44} {'records/s':>9} {'CPU ms/record':>13}")
    for size in (1, 10, 50, 500):
        write(size)
    print(f"\n{'query':44} {'p50 ms':>9} {'max ms':>9} {'CPU ms':>9}")
    slow = [name for name, ask in questions() if not timed(name, ask, runs)]
    if slow and count >= 1_000_000:
        raise SystemExit(f"above {WANTED * 1000:.0f} ms: {', '.join(slow)}")


def exchanges(count: int, begin: float, end: float, seed: int = 1) -> Iterator[Exchange]:
    """Spread over the time evenly, keys and models at random: the most roll-ups there can be."""
    random = Random(seed)
    for number in range(count):
        at = begin + (end - begin) * number / count
        key = random.randrange(KEYS)
        how = random.choice(ENDS)
        web = random.random() < 0.9
        attempt = Attempt(random.randrange(CREDENTIALS), "abcd", "sso", "web", "fast")
        if not web:
            attempt = Attempt(random.randrange(CREDENTIALS), "wxyz", "api", "api", "api")
        yield Exchange(
            id=f"{random.getrandbits(128):032x}",
            operation="chat",
            started_at=at,
            key_id=key,
            key_name=f"team {key}",
            model=f"grok-{random.randrange(MODELS)}",
            streaming=random.random() < 0.7,
            attempts=[] if how is End.REFUSED else [attempt],
            end=how,
            status=200 if how is End.COMPLETED else 502,
            error_code="" if how is End.COMPLETED else random.choice(ERRORS),
            first_event=random.random() if how is End.COMPLETED else None,
            duration=random.random() * 20,
            prompt_tokens=random.randrange(5000),
            completion_tokens=random.randrange(2000),
            tokens="estimated",
            bytes_in=2000,
            bytes_out=9000,
        )


def fill(count: int) -> None:
    from gateway.ledger.records import record_of
    from gateway.ledger.store import Store

    store, batch = Store(), []
    for exchange in exchanges(count, BEGIN.timestamp(), NOW.timestamp()):
        batch.append(record_of(exchange))
        if len(batch) == 500:
            store.write(batch, False)
            batch = []
    if batch:
        store.write(batch, False)


def write(size: int) -> None:
    """CPU is that of this process: all there is with SQLite, the client's share elsewhere."""
    from gateway.ledger.records import record_of
    from gateway.ledger.store import Store

    store = Store()
    count = min(4000, size * 200)
    made = list(exchanges(count, NOW.timestamp(), NOW.timestamp() + count / 100, seed=size + 1))
    clock, cpu = time.perf_counter(), time.process_time()
    for start in range(0, count, size):
        store.write([record_of(exchange) for exchange in made[start : start + size]], False)
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    print(f"{f'in batches of {size}':44} {count / clock:9.0f} {cpu / count * 1000:13.3f}")


def timed(name: str, ask: Callable[[], Any], runs: int) -> bool:
    """Prints the line; whether even the slowest run was fast enough."""
    took, cpu = [], time.process_time()
    for _ in range(runs):
        start = time.perf_counter()
        ask()
        took.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / runs
    print(f"{name:44} {median(took) * 1000:9.1f} {max(took) * 1000:9.1f} {cpu * 1000:9.1f}")
    return max(took) <= WANTED


def questions() -> Iterator[tuple[str, Callable[[], Any]]]:
    yield from listing_questions()
    yield from usage_questions()


def listing_questions() -> Iterator[tuple[str, Callable[[], Any]]]:
    from gateway.ledger.filters import FAILED, RecordFilter
    from gateway.ledger.models import RequestRecord
    from gateway.ledger.queries import count_up_to, records

    middle = RequestRecord.objects.order_by("started_at").filter(
        started_at__gte=NOW - timedelta(days=DAYS / 2)
    )[0]
    day = NOW - timedelta(days=1)
    filters = {
        "newest": RecordFilter(),
        "one day": RecordFilter(since=day),
        "key": RecordFilter(key_id=7),
        "key without requests": RecordFilter(key_id=777),
        "model": RecordFilter(model="grok-7"),
        "model and key": RecordFilter(model="grok-7", key_id=7),
        "failed": RecordFilter(ends=FAILED),
        "stopped (none)": RecordFilter(ends=frozenset({End.STOPPED})),
        "completed, of one key": RecordFilter(ends=frozenset({End.COMPLETED}), key_id=7),
        "stopped (none), of one key": RecordFilter(ends=frozenset({End.STOPPED}), key_id=7),
        "credential": RecordFilter(credential_id=7),
        "api": RecordFilter(upstream="api"),
        "api (none), completed": RecordFilter(upstream="nix", ends=frozenset({End.COMPLETED})),
        "error code": RecordFilter(error_code="upstream_timeout"),
        "error code and model": RecordFilter(error_code="upstream_timeout", model="grok-7"),
        "text: a key": RecordFilter(text="team 33"),
        "text: eleven keys": RecordFilter(text="TEAM 4"),
        "text: all keys": RecordFilter(text="team"),
        "text: nothing": RecordFilter(text="nobody%"),
        "text: a request": RecordFilter(text=middle.request_id),
        "text: beginning of a request": RecordFilter(text=middle.request_id[:8]),
        "text: a key, failed, a model": RecordFilter(text="team 33", ends=FAILED, model="grok-3"),
    }
    for name, wanted in filters.items():
        yield f"records: {name}", partial(records, wanted)
        yield "  in the middle", partial(records, wanted, middle.pk)
        yield "  count up to 10000", partial(count_up_to, wanted, 10_000)


def usage_questions() -> Iterator[tuple[str, Callable[[], Any]]]:
    from gateway.ledger import queries
    from gateway.ledger.queries import UsageFilter

    for days in (1, 2, 7, 14):
        since = NOW - timedelta(days=days)
        yield f"hours of {days} days", partial(queries.hours, since, NOW)
    two_weeks = NOW - timedelta(days=14)
    for name, wanted in {"model": UsageFilter("grok-7"), "key": UsageFilter(key_id=7)}.items():
        yield f"hours of 14 days, one {name}", partial(queries.hours, two_weeks, NOW, wanted)
        yield f"days of 30 days, one {name}", partial(queries.days, BEGIN, NOW, wanted)
    yield "days of 30 days", partial(queries.days, BEGIN, NOW)
    for days in (1, 7, 30):
        since = NOW - timedelta(days=days)
        for name in ("summary", "top_models", "top_keys", "top_errors"):
            yield f"{name} of {days} days", partial(getattr(queries, name), since)


if __name__ == "__main__":
    main()
