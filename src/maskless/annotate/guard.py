"""Who may talk to the server: one person's browser on this machine.

Other web pages, open in the same browser, can send requests to this machine too. So:

* every route needs a secret: it comes once in the address that is printed, and lives in a cookie
  that scripts cannot read and that other sites' requests do not carry (SameSite=Strict);
* ``Host`` must be ours, or a foreign name that points to 127.0.0.1 could read answers (DNS
  rebinding);
* what changes anything must come from our own page: ``Origin`` must be ours, and a header that a
  form cannot send must be there;
* answers allow no other origin, no frames and nothing loaded from elsewhere.

The secret is compared in constant time and never logged.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN_HEADER = "x-maskless"
MOST_BYTES = 8 * 2**20
_ENTERED = (
    b'<link rel="icon" href="data:,"><title>maskless</title>'
    b'<meta http-equiv="refresh" content="0;url=/">'
)
_SECURITY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Lets requests of our own page through, and refuses all others with one plain line.

    Parameters
    ----------
    app
        What it guards.
    token
        The secret.
    hosts
        Values of ``Host`` that are ours, such as ``"127.0.0.1:8000"``.
    cookie
        Name of the cookie.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str], cookie: str) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._cookie = cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        headers = _headers(scope)
        if headers.get("host", "").lower() not in self._hosts:
            await _refuse(send, 403, "host", "this address is not the server's own")
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and given:
            await self._enter(given, send)
            return
        if not self._known(_cookie_value(headers.get("cookie", ""), self._cookie)):
            await _refuse(
                send,
                403,
                "token",
                "open the address that 'maskless annotate' printed; it holds the key to this page",
            )
            return
        if not self._from_own_page(scope["method"], headers):
            await _refuse(send, 403, "origin", "this request comes from another page")
            return
        if int(headers.get("content-length", "0") or 0) > MOST_BYTES:
            await _refuse(send, 413, "size", f"a request may have {MOST_BYTES} bytes")
            return
        await self._app(scope, receive, _secured(send))

    async def _enter(self, given: str, send: Send) -> None:
        """Take the token out of the address and put it into a cookie."""
        if not self._known(given):
            await _refuse(send, 403, "token", "this key is not the one of the running server")
            return
        value = self._token.decode()
        headers = {
            "content-type": "text/html; charset=utf-8",
            "set-cookie": f"{self._cookie}={value}; HttpOnly; SameSite=Strict; Path=/",
        }
        # No redirect: a browser that followed a link to here would leave the cookie out of it.
        await _answer(send, 200, _ENTERED, headers)

    def _known(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token)

    def _from_own_page(self, method: str, headers: dict[str, str]) -> bool:
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{h}" for h in self._hosts}:
            return False
        # A typed address says "none"; a link on another site says "cross-site".
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return False
        if method in ("GET", "HEAD"):
            return True
        return origin is not None and headers.get(OWN_HEADER) == "1"


class TooLargeError(Exception):
    """A body grew over the limit."""


async def body_of(receive: Receive, most: int = MOST_BYTES) -> bytes:
    """A request's body; it is not trusted to say its own length.

    Raises
    ------
    TooLargeError
        If there is more than `most`.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise TooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def error_body(kind: str, message: str, **more: Any) -> bytes:
    """The one shape of every error."""
    return json.dumps({"error": {"kind": kind, "message": message, **more}}).encode()


def _headers(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        # Two hosts or origins are a trick: together they are neither.
        found[key] = (
            f"{found[key]}, {value.decode('latin-1')}" if key in found else value.decode("latin-1")
        )
    if not found.get("content-length", "0").isdigit():
        found["content-length"] = str(MOST_BYTES + 1)
    return found


def _cookie_value(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _secured(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(k.encode(), v.encode()) for k, v in _SECURITY.items()]
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return send_with_headers


async def _refuse(send: Send, status: int, kind: str, message: str) -> None:
    await _answer(send, status, error_body(kind, message), {"content-type": "application/json"})


async def _answer(send: Send, status: int, body: bytes, headers: dict[str, str]) -> None:
    every = {**headers, "content-length": str(len(body))}
    listed = [(k.encode(), v.encode()) for k, v in every.items()]
    send = _secured(send)
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})
