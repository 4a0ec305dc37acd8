"""The application's configuration: ``current()`` is what is in force, ``live`` changes it.

``current().grok.timeout`` reads one setting. ``live`` is this process's only LiveConfig;
docs/configuration.md describes every setting.
"""

from gateway.conf.errors import ConfigError, Problem, SettingsRejected
from gateway.conf.layers import Resolved, resolve
from gateway.conf.live_config import LiveConfig
from gateway.conf.schema import Config

__all__ = [
    "Config",
    "ConfigError",
    "LiveConfig",
    "Problem",
    "Resolved",
    "SettingsRejected",
    "current",
    "live",
    "resolve",
]

live = LiveConfig()
current = live.current
