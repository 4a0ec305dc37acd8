"""The services that some tests run against, where they are on this machine.

PostgreSQL and MariaDB are expected on their usual ports of 127.0.0.1 with a superuser that
needs no password (``.ci/services`` sets them up so), Redis on its usual one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tests.conftest import need

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Service:
    """``storage`` is its SERVER_STORAGE_TYPE, ``url`` ends where a database name goes."""

    name: str
    storage: str
    driver: str
    port: int
    url: str

    def need_driver(self) -> None:
        """Skip the running test without it, or fail it where services are required."""
        need(find_spec(self.driver) is not None, f"the driver {self.driver} for {self.name}")

    def need(self) -> None:
        """The same for the service itself."""
        self.need_driver()
        with socket.socket() as probe:
            listening = probe.connect_ex((HOST, self.port)) == 0
        need(listening, f"{self.name} on {HOST}:{self.port}")


POSTGRES = Service(
    "PostgreSQL", "pgsql", "psycopg", 5432, f"postgresql+asyncpg://postgres@{HOST}:5432/"
)
MARIADB = Service("MariaDB", "mysql", "MySQLdb", 3306, f"mysql+aiomysql://root@{HOST}:3306/")
REDIS = Service("Redis", "redis", "django_redis", 6379, f"redis://{HOST}:6379/")
DATABASES = (POSTGRES, MARIADB)


def environment(service: Service, name: str) -> dict[str, str]:
    """The process settings for a database called ``name``."""
    return {"SERVER_STORAGE_TYPE": service.storage, "SERVER_STORAGE_URL": service.url + name}


def own_name(purpose: str) -> str:
    """A database name that no other run on this machine uses."""
    return f"grok2api_{purpose}_{os.getpid()}"


@contextmanager
def new_database(service: Service, purpose: str) -> Iterator[dict[str, str]]:
    """An empty database for the time of the block; gives the process settings for it."""
    service.need()
    name = own_name(purpose)
    _execute(service, f"DROP DATABASE IF EXISTS {name}", f"CREATE DATABASE {name}")
    try:
        yield environment(service, name)
    finally:
        force = " WITH (FORCE)" if service is POSTGRES else ""
        _execute(service, f"DROP DATABASE {name}{force}")


def query(service: Service, name: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows of one statement in the database ``name``."""
    return _execute(service, statement, database=name)


def _execute(service: Service, *statements: str, database: str = "") -> list[tuple[Any, ...]]:
    connection = _connect(service, database)
    try:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def _connect(service: Service, database: str) -> Any:
    driver = import_module(service.driver)
    if service is POSTGRES:
        where = f"host={HOST} port={service.port} user=postgres dbname={database or 'postgres'}"
        return driver.connect(where, autocommit=True)
    return driver.connect(host=HOST, port=service.port, user="root", database=database)
