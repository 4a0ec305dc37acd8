"""Every setting: its type, default, limits and meaning (http-contract 10, and ours).

One frozen model per section; ``Config`` puts them together. Values are checked strictly:
a number in quotes is an error, not a number. Secret fields stay out of every ``repr``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from gateway.conf.field_types import (
    Day,
    ImageMethod,
    Name,
    OptionalWebAddress,
    Origins,
    ProxyAddress,
    Secret,
    StatusCodes,
    Text,
    Texts,
    UserName,
    WebAddress,
)

NOT_USED: JsonDict = {"unused": True}
"""Marks a key that old files have: kept, reported as not used, never acted on."""


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, hide_input_in_errors=True, allow_inf_nan=False
    )


class App(Section):
    """The service itself: its address, who may enter, and what it hands out."""

    app_url: OptionalWebAddress = Field(
        "http://127.0.0.1:8000",
        description="Address at which clients reach this service; it is put before the URLs of"
        " returned files. Empty: relative URLs.",
    )
    admin_username: UserName = Field(
        "admin",
        description="Name of the admin user, used only when that user is first created.",
    )
    app_key: Secret = Field(
        "",
        description="Admin password, used only when the admin user is first created. The"
        " environment variable GROK2API_ADMIN_PASSWORD is preferred. Empty: a random"
        " password is made and printed once.",
    )
    api_key: Secret = Field(
        "",
        description="One global client key, accepted beside the created ones. Empty: none.",
    )
    image_format: Literal["url", "base64", "b64_json"] = Field(
        "url", description="How images are returned when the request does not say."
    )
    video_format: Text = Field(
        "url", description="Kept for old files; it has no effect.", json_schema_extra=NOT_USED
    )
    sign_media_urls: bool = Field(
        True, description="Give returned file URLs a signature that expires."
    )
    media_url_hours: int = Field(
        168, ge=1, le=87_600, description="Hours for which a signed file URL is good."
    )
    accel_redirect: Text = Field(
        "",
        description="Internal address of the web server in front, below which it serves the"
        " folder tmp of the data directory (X-Accel-Redirect). Empty: files are sent from here.",
    )


class Grok(Section):
    """grok.com: how it is reached and how its answers are shown."""

    temporary: bool = Field(True, description="Ask for conversations that are not kept upstream.")
    stream: bool = Field(True, description="Stream when the request does not say.")
    thinking: bool = Field(True, description="Show the reasoning when the request does not say.")
    thinking_format: Literal["reasoning_content", "think_tags"] = Field(
        "reasoning_content",
        description="Where shown reasoning goes: a field of its own, or <think> tags in the"
        " text for old clients.",
    )
    dynamic_statsig: bool = Field(
        True,
        description="Kept for old files; not used. This service makes up no anti-bot values.",
        json_schema_extra=NOT_USED,
    )
    filter_tags: Texts = Field(
        ("xaiartifact", "xai:tool_usage_card", "grok:render"),
        description="Tags of upstream's own markup that never reach a client.",
    )
    video_poster_preview: bool = Field(
        False, description="Answer a video with a poster image that links to it."
    )
    timeout: int = Field(
        120, ge=1, le=3600, description="Seconds that upstream may be silent before giving up."
    )
    base_proxy_url: ProxyAddress = Field(
        "",
        description="Proxy for requests to grok.com (http, https, socks5 or socks5h)."
        " Empty: direct.",
    )
    asset_proxy_url: ProxyAddress = Field(
        "", description="Proxy for uploads and downloads. Empty: that of base_proxy_url."
    )
    cf_clearance: Secret = Field(
        "", description="The cf_clearance cookie of your own browser session. Empty: not sent."
    )
    cf_cookies: Secret = Field(
        "",
        description="Further Cloudflare cookies of the same browser session, as name=value"
        " pairs separated by semicolons. Empty: none.",
    )
    user_agent: Name = Field(
        "grok2api",
        description="The User-Agent sent to grok.com. A cf_clearance is bound to the browser it"
        " came from: with one, set that browser's.",
    )
    statsig_id: Secret = Field(
        "", description="An x-statsig-id of your own browser session. Empty: not sent."
    )
    max_retry: int = Field(
        3,
        ge=0,
        le=100,
        description="Further credentials tried when one fails before the answer begins.",
    )
    retry_status_codes: StatusCodes = Field(
        (401, 429, 403), description="Upstream statuses after which another credential is tried."
    )
    image_generation_method: ImageMethod = Field(
        "legacy", description="Which upstream way makes images."
    )
    base_url: WebAddress = Field("https://grok.com", description="Address of grok.com.")
    accounts_url: WebAddress = Field(
        "https://accounts.x.ai", description="Address of the account service."
    )
    assets_url: WebAddress = Field(
        "https://assets.grok.com", description="Address from which assets are downloaded."
    )
    chat_protocol: Literal["mgw", "rest"] = Field(
        "mgw", description="Which web chat protocol is spoken."
    )
    rest_form: Literal["mode_id", "model_name"] = Field(
        "mode_id", description="With chat_protocol rest: how a request names the model."
    )
    media_protocol: Literal["current", "legacy"] = Field(
        "current", description="Which generation of image and video requests is sent."
    )
    legacy_image_to_video: bool = Field(
        False,
        description="Make videos from pictures by the older requests, which the current ones have"
        " no form for. Off: such a request is refused.",
    )
    allow_private_fetch: bool = Field(
        False,
        description="Allow remote image_url addresses on private networks. Leave it off where"
        " clients are not trusted.",
    )
    disable_memory: bool = Field(
        True, description="Keep upstream's memory of earlier conversations out of answers."
    )
    nsfw_enabled: bool = Field(
        False,
        description="Send image requests with enable_nsfw, as the account itself could, and allow"
        " the video preset spicy.",
    )


class Token(Section):
    """How the pool is refreshed and kept."""

    auto_refresh: bool = Field(True, description="Refresh quotas regularly.")
    refresh_interval_hours: int = Field(
        8, ge=1, le=720, description="Hours between two regular refreshes."
    )
    fail_threshold: int = Field(
        5,
        ge=1,
        le=1000,
        description="Failures of upstream in a row after which a credential rests for long and"
        " is checked; a refused sign-in retires it at once.",
    )
    save_delay_ms: int = Field(
        500,
        ge=0,
        le=60_000,
        description="Milliseconds for which changes are gathered before they are written."
        " 0: at once.",
    )
    reload_interval_sec: int = Field(
        30,
        le=86_400,
        description="Seconds after which a worker compares all credentials with the record, beside"
        " reading changed ones every second. 0 or less: never.",
    )
    nsfw_refresh_concurrency: int = Field(
        10, ge=1, le=1000, description="Accounts whose settings are changed at the same time."
    )
    nsfw_refresh_retries: int = Field(
        3, ge=0, le=100, description="Further attempts per account at changing its settings."
    )


class Cache(Section):
    """Images and videos kept on disk."""

    enable_auto_clean: bool = Field(True, description="Delete the oldest files above limit_mb.")
    limit_mb: int = Field(
        1024,
        ge=1,
        le=100_000_000,
        description="Megabytes of images and videos together; above it the oldest are deleted"
        " down to 80 %.",
    )
    keep_base64_cache: bool = Field(
        True, description="Keep the file of an image that was returned as base64."
    )


class Performance(Section):
    """How much is done at the same time."""

    assets_max_concurrent: int = Field(
        25, ge=1, le=10_000, description="Uploads and asset requests at the same time."
    )
    media_max_concurrent: int = Field(
        50, ge=1, le=10_000, description="Media requests at the same time."
    )
    usage_max_concurrent: int = Field(
        25, ge=1, le=10_000, description="Quota requests at the same time."
    )
    assets_delete_batch_size: int = Field(
        10, ge=1, le=10_000, description="Assets deleted at the same time."
    )
    admin_assets_batch_size: int = Field(
        10, ge=1, le=10_000, description="Accounts that one asset listing works on together."
    )


class Register(Section):
    """Onboarding of accounts that you already have. Other keys of old files are not used."""

    auto_account_settings: bool = Field(
        False, description="Set up added accounts: terms, birth date, content preference."
    )
    birth_date: Day = Field(
        "",
        description="Your true birth date (YYYY-MM-DD), for accounts that have none. It cannot"
        " be changed upstream afterwards. Empty: never sent.",
    )


class Pool(Section):
    """Which credential serves a request."""

    policy: Literal["web_first", "api_first", "web_only", "api_only"] = Field(
        "web_first", description="Preference between web sessions and official API keys."
    )
    wait_ms: int = Field(
        0,
        ge=0,
        le=60_000,
        description="Milliseconds that a request waits for a credential to be free.",
    )
    max_waiting: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        description="Requests of one worker that may wait for a credential at the same time;"
        " further ones are refused at once.",
    )
    incident_threshold: int = Field(
        5,
        ge=0,
        le=1_000_000,
        description="Credentials hit by the same error within incident_window_sec after which it"
        " counts as trouble of upstream and penalties pause. 0: never.",
    )
    incident_window_sec: int = Field(
        60,
        ge=1,
        le=86_400,
        description="Seconds within which those errors fall; an incident ends after as long"
        " without one.",
    )
    max_concurrent_per_credential: int = Field(
        4, ge=1, le=10_000, description="Requests at the same time on one web session."
    )
    max_concurrent_per_api_key: int = Field(
        64, ge=1, le=10_000, description="Requests at the same time on one API key."
    )
    max_cooldown_sec: int = Field(
        86_400,
        ge=1,
        le=31_536_000,
        description="Longest cool-down in seconds, whatever upstream asks for.",
    )


class Xai(Section):
    """The official API."""

    base_url: WebAddress = Field("https://api.x.ai", description="Address of the API.")
    management_url: WebAddress = Field(
        "https://management-api.x.ai", description="Address of the Management API."
    )
    timeout: int = Field(
        600, ge=1, le=3600, description="Seconds that the API may be silent before giving up."
    )


class Server(Section):
    """The HTTP side."""

    max_body_mb: int = Field(50, ge=1, le=10_000, description="Largest request body, in megabytes.")
    keepalive_sec: int = Field(
        15, ge=1, le=300, description="Seconds of silence after which a stream gets a comment."
    )
    cors_origins: Origins = Field(
        ("*",),
        description="Origins whose pages may call /v1; * is any. Cookies are never allowed.",
    )
    drain_sec: int = Field(
        8,
        ge=0,
        le=9,
        description="Seconds that running streams have to finish when the service stops.",
    )


class Ledger(Section):
    """The record of requests."""

    retention_days: int = Field(
        30, ge=1, le=36_500, description="Days for which the record of requests is kept."
    )
    max_queue: int = Field(
        10_000,
        ge=100,
        le=10_000_000,
        description="Records of one worker that may wait to be written; further ones are dropped"
        " and counted.",
    )


class Metrics(Section):
    """Numbers for monitoring."""

    token: Secret = Field(
        "", description="Bearer token that opens the metrics. Empty: admin users only."
    )


class Models(Section):
    """The model catalogue."""

    aliases: dict[Name, Name] = Field(
        default_factory=dict,
        max_length=1000,
        description="Further model names, each with the model id that it stands for.",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All sections, each checked; ``config.grok.timeout`` and so on."""

    app: App = field(default_factory=App)
    grok: Grok = field(default_factory=Grok)
    xai: Xai = field(default_factory=Xai)
    pool: Pool = field(default_factory=Pool)
    token: Token = field(default_factory=Token)
    models: Models = field(default_factory=Models)
    cache: Cache = field(default_factory=Cache)
    performance: Performance = field(default_factory=Performance)
    server: Server = field(default_factory=Server)
    ledger: Ledger = field(default_factory=Ledger)
    metrics: Metrics = field(default_factory=Metrics)
    register: Register = field(default_factory=Register)
