"""``python -m bench.seed``: a database with credentials and one client key.

Works on the data directory of ``GROK2API_DATA_DIR``; prints the key.
"""

from __future__ import annotations

import argparse
import os

import django


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sso", type=int, default=200)
    parser.add_argument("--api", type=int, default=20)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "grok2api.settings")
    django.setup()
    print(seed(options.sso, options.api))


def seed(sso: int, api: int) -> str:
    """Migrate, import that many credentials of each kind, return a new client key."""
    from django.utils import timezone

    from grok2api.bootstrap import prepare
    from pool.importing import import_credentials
    from pool.keys import create_client_key
    from pool.models import Kind

    prepare()
    tokens = {
        Kind.SSO: [f"ok-bench-{number}" for number in range(sso)],
        Kind.API: [f"xai-ok-bench-key-{number:012}" for number in range(api)],
    }
    for kind, secrets in tokens.items():
        import_credentials("\n".join(secrets), kind, now=timezone.now())
    return create_client_key("bench")[1]


if __name__ == "__main__":
    main()
