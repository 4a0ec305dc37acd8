"""The request headers grok.com expects: what the operator holds, and nothing made up.

Sources: upstream-web 1.1-1.3. Everything that depends on the settings alone is computed
once per settings object.
"""

from __future__ import annotations

from gateway.upstream.errors import CredentialRejected
from gateway.upstream.requests import Account
from gateway.upstream.web.settings import WebSettings

_KEPT_NAMES = ("__cf_bm", "_cfuvid")
_KEPT_PREFIX = "cf_chl_"


class Profile:
    """The addresses and header values of one ``WebSettings``.

    Cookies are made for ``settings.base_url`` and, in ``bare``, for the private host of
    assets; ``anonymous`` is for everything else.
    """

    __slots__ = ("_bare", "_cloudflare", "_json", "base_url", "origin", "settings", "user_agent")

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        self.base_url = settings.base_url.rstrip("/")
        self.origin = self.base_url
        self.user_agent = _clean(settings.user_agent)
        self._cloudflare = _cloudflare_cookies(settings)
        self._bare = {"Accept": "*/*", "Referer": f"{self.base_url}/"}
        if self.user_agent:
            self._bare["User-Agent"] = self.user_agent
        self._json = self._bare | {"Content-Type": "application/json", "Origin": self.origin}
        if statsig_id := _clean(settings.statsig_id):
            self._json["x-statsig-id"] = statsig_id

    def url(self, path: str) -> str:
        return self.base_url + path

    def mgw_url(self, user_id: str) -> str:
        """Where the chat WebSocket of that account is (upstream-web 3.1)."""
        return f"ws{self.base_url.removeprefix('http')}/ws/mgw/?uid={user_id}"

    def imagine_url(self) -> str:
        """Where the picture WebSocket is (upstream-web 8)."""
        return f"ws{self.base_url.removeprefix('http')}/ws/imagine/listen"

    def cookie(self, account: Account, user_id: str = "") -> str:
        """The ``Cookie`` header; ``user_id`` adds the cookie only ``/ws/mgw/`` needs.

        Raises CredentialRejected for a secret that cannot be a cookie.
        """
        sso, sso_rw = _session_pair(account.secret)
        suffix = f"; x-userid={user_id}" if user_id else ""
        return f"sso={sso}; sso-rw={sso_rw}{self._cloudflare}{suffix}"

    def bare(self, account: Account) -> dict[str, str]:
        """Headers of a plain read."""
        headers = self._bare.copy()
        headers["Cookie"] = self.cookie(account)
        return headers

    def json(self, account: Account, request_id: str) -> dict[str, str]:
        """Headers of a JSON call; ``request_id`` is a fresh UUIDv4."""
        headers = self._json.copy()
        headers["Cookie"] = self.cookie(account)
        headers["x-xai-request-id"] = request_id
        return headers

    def media_json(
        self, account: Account, request_id: str, page: str = "/imagine"
    ) -> dict[str, str]:
        """Headers of a JSON call about media, which must come from ``/imagine``."""
        headers = self.json(account, request_id)
        headers["Referer"] = self.base_url + page
        return headers

    def files(self, account: Account, request_id: str) -> dict[str, str]:
        """Headers of a call about stored assets, which comes from ``/files``."""
        headers = self.json(account, request_id)
        del headers["Content-Type"]
        headers["Referer"] = f"{self.base_url}/files"
        return headers

    def upload(
        self, account: Account, content_type: str, *, for_media: bool = False
    ) -> dict[str, str]:
        """Headers of a multipart upload: no request id (upstream-web 5.3)."""
        headers = self._json.copy()
        headers["Cookie"] = self.cookie(account)
        headers["Content-Type"] = content_type
        if for_media:
            headers["Referer"] = f"{self.base_url}/imagine"
        return headers

    def anonymous(self) -> dict[str, str]:
        """Headers of a public download: nothing that says whose it is."""
        return {name: value for name, value in self._bare.items() if name != "Referer"}


def _clean(value: str) -> str:
    return "".join(char for char in value if " " <= char <= "~").strip()


def _cloudflare_cookies(settings: WebSettings) -> str:
    pairs = [("cf_clearance", settings.cf_clearance)] if settings.cf_clearance else []
    for item in settings.cf_cookies.split(";"):
        name, _, value = item.strip().partition("=")
        if name in _KEPT_NAMES or name.startswith(_KEPT_PREFIX):
            pairs.append((name, value))
    return "".join(f"; {_clean(name)}={_clean(value)}" for name, value in pairs)


def _session_pair(secret: str) -> tuple[str, str]:
    """``sso`` and ``sso-rw`` of a bare value, or of ``sso=<t>;sso-rw=<u>`` in any order."""
    secret = secret.strip()
    if not secret.lower().startswith(("sso=", "sso-rw=")):
        sso = _value(secret.partition(";")[0].rstrip())
        return sso, sso
    named = {}
    for item in secret.split(";"):
        name, _, value = item.strip().partition("=")
        named[name.lower()] = value
    sso = _value(named.get("sso", ""))
    return sso, _value(named.get("sso-rw") or sso)


def _value(sso: str) -> str:
    if not sso or not sso.isascii() or not sso.isprintable():
        raise CredentialRejected(row=1, evidence="the secret is not a cookie value")
    return sso
