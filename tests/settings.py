"""The project's settings with a data directory of the test run's own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

_data_dir = tempfile.mkdtemp(prefix="grok2api-tests-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)
os.environ["GROK2API_DATA_DIR"] = _data_dir
for _name in [name for name in os.environ if name.startswith("GROK2API_")]:
    if _name != "GROK2API_DATA_DIR":
        del os.environ[_name]

from grok2api.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
