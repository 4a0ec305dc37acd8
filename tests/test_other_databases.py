"""What depends on the database, run again on each of the other kinds of database.

Django's settings are those of a process, so each kind gets a test process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import DATABASES, Service, environment, own_name

ROOT = Path(__file__).resolve().parent.parent
SUITES = (
    "tests/pool/test_roster.py",
    "tests/pool/test_upkeep.py",
    "tests/pool/test_importing.py",
    "tests/pool/test_keys.py",
    "tests/pool/test_admin.py",
    "tests/pool/test_operations.py",
    "tests/pool/test_incident_record.py",
    "tests/pool/test_checks.py",
    "tests/pool/test_rotation.py",
    "tests/pool/test_leadership.py",
    "tests/pool/limits/test_usage.py",
    "tests/gateway/test_refresh_quota.py",
    "tests/gateway/conf/test_saved.py",
    "tests/gateway/ledger/test_store.py",
    "tests/gateway/ledger/test_queries.py",
    "tests/gateway/ledger/test_retention.py",
    "tests/gateway/ledger/test_admin.py",
    "tests/gateway/ledger/test_records.py",
)


@pytest.mark.parametrize("service", DATABASES, ids=lambda service: service.name)
def test_what_depends_on_the_database_passes_there_too(service: Service) -> None:
    service.need()
    # The name is of this process: two runs on one machine must not share a database.
    chosen = environment(service, own_name("suite"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES]
    run = subprocess.run(
        command, cwd=ROOT, env=os.environ | chosen, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " skipped" not in run.stdout
