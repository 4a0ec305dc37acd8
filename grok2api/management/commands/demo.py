"""``manage.py demo``: the gateway against its own simulated upstream, ready to try."""

from __future__ import annotations

import os
from pathlib import Path
from socket import socket
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.serve import SandboxThread
from grok2api import server
from grok2api.bootstrap import claim_demo_data, ensure_admin, prepare
from grok2api.env import env_int
from pool.importing import import_credentials
from pool.keys import create_client_key, digest
from pool.models import ClientKey, Kind

HOST = "127.0.0.1"
CREDENTIALS = {
    Kind.SSO: ["ok-demo-1", "ok-demo-2", "limited-demo-3"],
    Kind.SSO_SUPER: ["ok-super-demo-1", "ok-super-demo-2"],
    Kind.API: ["xai-ok-demo-key-000000000001", "xai-ok-demo-key-000000000002"],
}
"""Names that make the sandbox behave: "ok" answers, "limited" says 429 and shows failover."""
ADDRESSES = (
    "GROK__BASE_URL",
    "GROK__ACCOUNTS_URL",
    "GROK__ASSETS_URL",
    "XAI__BASE_URL",
    "XAI__MANAGEMENT_URL",
)
GUIDE = """
grok2api demo: everything below runs on this machine against a simulated upstream.

  API       {base}/v1
  Admin     {base}/admin/   (admin / admin)
  Sandbox   {sandbox}
  Key       {key}

Try it:

  curl {base}/v1/chat/completions -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "grok-4", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'

Ctrl-C stops it; the data stays in {data}.
"""


class Command(BaseCommand):
    help = "Run the gateway with demo data against the sandbox upstream, on 127.0.0.1 only."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            listener = server.bind(HOST, env_int("SERVER_PORT", 8000))
        except server.CannotListen as error:
            raise CommandError(f"{error}. SERVER_PORT chooses another port.") from error
        # Real accounts run out; who tries the demo should not have to wait for tomorrow.
        with SandboxThread(options=SandboxOptions(quota_falls=False)) as sandbox:
            self._run(listener, sandbox.url)

    def _run(self, listener: socket, sandbox: str) -> None:
        base = server.url_of(listener)
        for name in ADDRESSES:
            os.environ[f"GROK2API_{name}"] = sandbox
        os.environ["GROK2API_APP__APP_URL"] = base
        note = claim_demo_data()
        config = prepare()
        ensure_admin(config, password="admin")  # noqa: S106 - the demo says so, on 127.0.0.1
        key = _seed(note)
        self.stdout.write(GUIDE.format(base=base, sandbox=sandbox, key=key, data=settings.DATA_DIR))
        self.stdout.flush()
        server.run(listener, workers=1, drain_sec=config.server.drain_sec)


def _seed(note: Path) -> str:
    """Credentials and one client key; its clear text is kept only for the demo."""
    for kind, tokens in CREDENTIALS.items():
        import_credentials("\n".join(tokens), kind, now=timezone.now())
    kept = note.read_text(encoding="utf-8").strip()
    if kept and ClientKey.objects.filter(digest=digest(kept), is_active=True).exists():
        return kept
    _, clear = create_client_key("demo")
    note.write_text(clear + "\n", encoding="utf-8")
    return clear
