"""Django settings, driven by the environment; see docs/configuration.md."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path

from django.utils.translation import gettext_lazy as _

from grok2api.env import LIMIT_TABLE as LIMIT_TABLE_VARIABLE
from grok2api.env import (
    database,
    env_bool,
    env_list,
    env_secret,
    kept_secret,
    need_drivers,
    redis_url,
    time_zone,
)
from pool.limits.day import RESET_OFFSET, offset_of

BASE_DIR = Path(__file__).resolve().parent.parent
# The demo's admin has a public password: its data never mixes with an operator's.
_usual_data = BASE_DIR / "data" / "demo" if sys.argv[1:2] == ["demo"] else BASE_DIR / "data"
DATA_DIR = Path(os.environ.get("GROK2API_DATA_DIR") or _usual_data).resolve()
STORAGE_TYPE = os.environ.get("SERVER_STORAGE_TYPE", "local").strip().lower() or "local"
STORAGE_URL = os.environ.get("SERVER_STORAGE_URL", "").strip()
REDIS_URL = redis_url(STORAGE_TYPE, STORAGE_URL, os.environ.get("REDIS_URL", "").strip())
need_drivers(STORAGE_TYPE, REDIS_URL)
LIMIT_TABLE = os.environ.get(LIMIT_TABLE_VARIABLE, "")
DAY_OFFSET = offset_of(os.environ.get(RESET_OFFSET))

_given = env_secret("GROK2API_SECRET_KEY")
GROK2API_SECRET_KEYS = (
    [key.strip() for key in _given.replace("\n", ",").split(",") if key.strip()]
    if _given
    else kept_secret(DATA_DIR / "secret.key")
)
GROK2API_PEPPER = env_secret("GROK2API_PEPPER") or kept_secret(DATA_DIR / "pepper.key")[0]
SECRET_KEY = hashlib.sha256(b"django:" + GROK2API_SECRET_KEYS[0].encode()).hexdigest()
SECRET_KEY_FALLBACKS = [
    hashlib.sha256(b"django:" + key.encode()).hexdigest() for key in GROK2API_SECRET_KEYS[1:]
]

DEBUG = env_bool("GROK2API_DEBUG", False)
ALLOWED_HOSTS = env_list("GROK2API_ALLOWED_HOSTS", []) or ["localhost", "127.0.0.1", "[::1]"]
CSRF_TRUSTED_ORIGINS = env_list("GROK2API_TRUSTED_ORIGINS", [])
APPEND_SLASH = False

HTTPS = env_bool("GROK2API_HTTPS", False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "pool",
    "gateway",
    "register",
    "grok2api",
]
if "runserver" in sys.argv:
    # Only runserver needs daphne, and importing it costs every command half a second.
    INSTALLED_APPS.insert(0, "daphne")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "grok2api.urls"
ASGI_APPLICATION = "grok2api.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = {"default": database(STORAGE_TYPE, STORAGE_URL, DATA_DIR)}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

if REDIS_URL:
    CACHES = {"default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": REDIS_URL}}
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": [REDIS_URL]},
        }
    }
else:
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en"
LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = time_zone(os.environ.get("TZ", ""))
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
# Served straight from the apps that bring them: there is no collecting step to forget.
STATIC_ROOT = None
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

LOG_LEVEL = os.environ.get("LOG_LEVEL", "INFO").strip().upper() or "INFO"
if LOG_LEVEL not in logging.getLevelNamesMapping():
    LOG_LEVEL = "INFO"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)-7s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "httpx": {"level": "WARNING"},
        "websockets": {"level": "WARNING"},
        "asyncio": {"level": "WARNING"},
    },
}
