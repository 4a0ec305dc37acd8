"""The servers of the table, and the upstream behind them all."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.answers import Dialect
from bench.floor import WEB_FIELDS, WEB_PATH
from bench.load import Job
from bench.processes import (
    Running,
    Stage,
    StartFailed,
    finish,
    free_port,
    nginx_path,
    wait_for_http,
    wait_for_line,
)
from bench.usage import family

CHAT_PATH = "/v1/chat/completions"
MODEL = "grok-4"
WEB_FLOOR = "floor"
TIGHT_FLOOR = "floor-tight"
XAI_FLOOR = "floor-xai"
MGW_FLOOR = "floor-mgw"
BARE = "gateway-bare"
"""gateway-rest without pool, limits, ledger and numbers."""
SIDES = {XAI_FLOOR: "xai", MGW_FLOOR: "mgw"}
COMPARED_WITH = {
    XAI_FLOOR: XAI_FLOOR,
    "gateway-xai": XAI_FLOOR,
    MGW_FLOOR: MGW_FLOOR,
    "gateway-mgw": MGW_FLOOR,
}
"""Rows that are not compared with the web floor."""
GATEWAYS = {
    "gateway-rest": {"GROK2API_GROK__CHAT_PROTOCOL": "rest"},
    BARE: {"GROK2API_GROK__CHAT_PROTOCOL": "rest"},
    "gateway-mgw": {"GROK2API_GROK__CHAT_PROTOCOL": "mgw"},
    "gateway-xai": {"GROK2API_POOL__POLICY": "api_only"},
}
NAMES = (
    TIGHT_FLOOR,
    WEB_FLOOR,
    BARE,
    "gateway-rest",
    "nginx",
    MGW_FLOOR,
    "gateway-mgw",
    XAI_FLOOR,
    "gateway-xai",
    "nginx-xai",
)
"""Rows that are compared stand side by side, so that they are measured side by side."""
_ADDRESSES = (
    "GROK__BASE_URL",
    "GROK__ACCOUNTS_URL",
    "GROK__ASSETS_URL",
    "XAI__BASE_URL",
    "XAI__MANAGEMENT_URL",
)
_NGINX = """
worker_processes 1;
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {dir}/nginx-body;
    proxy_temp_path {dir}/nginx-proxy;
    fastcgi_temp_path {dir}/nginx-fastcgi;
    uwsgi_temp_path {dir}/nginx-uwsgi;
    scgi_temp_path {dir}/nginx-scgi;
    client_body_buffer_size 1m;
    keepalive_requests 1000000;
    upstream sandbox {{ server {upstream}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://sandbox;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One row of the table. ``floor`` names the row it is compared with."""

    name: str
    url: str
    pid: int
    floor: str
    key: str = ""
    model: str = MODEL
    dialect: Dialect = "openai"
    exact: bool = True

    def job(self, streaming: bool, prompt: str, **sizes: int) -> Job:
        """What the load generator is to do; ``sizes`` are those of Job."""
        path, headers, body = self._request(streaming, prompt)
        return Job(
            url=self.url,
            path=path,
            headers=headers,
            body=json.dumps(body),
            pids=family(self.pid),
            streaming=streaming,
            dialect=self.dialect,
            exact=self.exact,
            **sizes,
        )

    def _request(
        self, streaming: bool, prompt: str
    ) -> tuple[str, dict[str, str], dict[str, object]]:
        if self.dialect == "grok":
            cookie = {"Cookie": "sso=ok-nginx; sso-rw=ok-nginx", "User-Agent": "bench"}
            return WEB_PATH, cookie, {**WEB_FIELDS, "message": prompt}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        messages = [{"role": "user", "content": prompt}]
        return (
            CHAT_PATH,
            headers,
            {
                "model": self.model,
                "stream": streaming,
                "messages": messages,
            },
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """An upstream and a seeded data directory, from which servers are started."""

    stage: Stage
    upstream: str
    data: Path
    key: str

    def start(self, names: list[str]) -> list[Server]:
        """Start servers side by side; those that cannot exist here are left out.

        Raises StartFailed, also for a name that is not one of NAMES.
        """
        if unknown := set(names).difference(NAMES):
            raise StartFailed(f"no such server: {', '.join(sorted(unknown))}")
        wanted = [name for name in names if not name.startswith("nginx") or nginx_path()]
        starts = [(self._begin(name), name) for name in wanted if name != "nginx-xai"]
        servers = [self._ready(running, url, name) for (running, url), name in starts]
        if "nginx-xai" in wanted:
            servers.append(self._nginx_xai(servers))
        return servers

    def _begin(self, name: str) -> tuple[Running, str]:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        if name in GATEWAYS:
            return self._gateway(name, port), url
        if name == "nginx":
            return self._nginx(port), url
        return self._floor(name, port), url

    def _floor(self, name: str, port: int) -> Running:
        arguments = ["-m", "bench.serve_floor", "--upstream", self.upstream, "--port", str(port)]
        arguments += ["--side", SIDES.get(name, "web")]
        arguments += ["--decoder", "pydantic" if name == TIGHT_FLOOR else "json"]
        return self.stage.python(name, arguments)

    def _ready(self, running: Running, url: str, name: str) -> Server:
        wait_for_http(running, f"{url}/readyz")
        self.stage.pin(running)
        floor = COMPARED_WITH.get(name, WEB_FLOOR)
        dialect: Dialect = "grok" if name == "nginx" else "openai"
        return Server(name, url, running.pid, floor, key=self.key, dialect=dialect)

    def _gateway(self, name: str, port: int) -> Running:
        program = ["-m", "bench.bare"] if name == BARE else ["manage.py"]
        return self.stage.python(name, [*program, *serve(port)], self.gateway_env(name))

    def gateway_env(self, name: str) -> dict[str, str]:
        """The environment of a gateway of its own, on a copy of the seeded data."""
        data = self.stage.path / name
        shutil.copytree(self.data, data)
        addresses = {f"GROK2API_{address}": self.upstream for address in _ADDRESSES}
        return {
            **addresses,
            **GATEWAYS[name],
            "GROK2API_DATA_DIR": str(data),
            "GROK2API_ADMIN_PASSWORD": "bench",
            "GROK2API_POOL__MAX_CONCURRENT_PER_CREDENTIAL": "64",
            "GROK2API_POOL__MAX_CONCURRENT_PER_API_KEY": "64",
        }

    def _nginx(self, port: int) -> Running:
        file = self.stage.path / "nginx.conf"
        upstream = self.upstream.removeprefix("http://")
        file.write_text(_NGINX.format(dir=self.stage.path, upstream=upstream, port=port))
        return self.stage.start("nginx", [nginx_path() or "nginx", "-c", str(file)])

    def _nginx_xai(self, servers: list[Server]) -> Server:
        """The same nginx in front of the other dialect."""
        found = [server for server in servers if server.name == "nginx"]
        url, pid = (found[0].url, found[0].pid) if found else self._lone_nginx()
        key = "xai-ok-nginx-000000000000000001"
        return Server("nginx-xai", url, pid, XAI_FLOOR, key=key, model="grok-4.3")

    def _lone_nginx(self) -> tuple[str, int]:
        running, url = self._begin("nginx")
        wait_for_http(running, f"{url}/readyz")
        self.stage.pin(running)
        return url, running.pid


def serve(port: int) -> list[str]:
    return ["serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


def set_scene(stage: Stage, sso: int = 200, api: int = 20) -> Scene:
    """Start the sandbox and seed a data directory at the same time."""
    sandbox = stage.python(
        "sandbox", ["manage.py", "sandbox", "--fixed-quota"], _data(stage, "sandbox")
    )
    seeding = stage.python(
        "seed", ["-m", "bench.seed", "--sso", str(sso), "--api", str(api)], _data(stage, "seed")
    )
    key = finish(seeding).strip().splitlines()[-1]
    return Scene(stage, wait_for_line(sandbox, "http://"), stage.path / "data-seed", key)


def _data(stage: Stage, name: str) -> dict[str, str]:
    return {"GROK2API_DATA_DIR": str(stage.path / f"data-{name}")}
