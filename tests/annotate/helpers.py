"""A small clustering, and a client of the page's server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import numpy as np

from maskless.annotate.places import Clustering


def clustering(seed: int = 0, n: int = 200, clusters: int = 6) -> Clustering:
    rng = np.random.default_rng(seed)
    return Clustering(
        tuple(str(i) for i in range(clusters)),
        rng.integers(0, clusters, n).astype(np.int32),
        ("a", "b"),
        np.sort(rng.integers(0, 2, n)).astype(np.int32),
        rng.uniform(0, 500, (n, 2)).astype(np.float32),
    )


class Answer:
    """Of the server: status, headers in small letters, body."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.headers = {k.decode().lower(): v.decode() for k, v in headers}
        self.body = body

    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Talks to an ASGI application as our own page does, unless told otherwise."""

    host, cookie, token = "127.0.0.1:8000", "maskless_8000", "the-secret-token"

    def __init__(self, app: Any) -> None:
        self.app = app

    def headers(self, method: str) -> dict[str, str]:
        """What a browser sends for the page's own requests."""
        own = {"host": self.host, "cookie": f"{self.cookie}={self.token}"}
        if method not in ("GET", "HEAD"):
            own |= {"origin": f"http://{self.host}", "x-maskless": "1"}
        return own

    def get(self, path: str, **changed: str | None) -> Answer:
        return self.send("GET", path, b"", **changed)

    def post(self, path: str, content: Any, **changed: str | None) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return self.send("POST", path, body, **changed)

    def send(self, method: str, path: str, body: bytes, **changed: str | None) -> Answer:
        """Headers are changed by name, `_` for `-`; None takes one away."""
        named = {key.replace("_", "-"): value for key, value in changed.items()}
        every = {**self.headers(method), **named}
        listed = [(k.encode(), v.encode("latin-1")) for k, v in every.items() if v is not None]
        return self.raw(method, path, body, listed)

    def raw(
        self, method: str, path: str, body: bytes, headers: list[tuple[bytes, bytes]]
    ) -> Answer:
        raw_path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        parts = [body[i : i + 2**20] for i in range(0, len(body), 2**20)] or [b""]
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            part = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(parts)}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        try:
            asyncio.run(self.app(scope, receive, send))
        except Exception:
            if not sent:  # a fault is raised again after its answer, for the server's own log
                raise
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return Answer(sent[0]["status"], sent[0]["headers"], content)


def bits(rows: Sequence[int], cells: int) -> str:
    """A selection as the page sends it."""
    mask = np.zeros(cells, np.uint8)
    mask[list(rows)] = 1
    return base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode()
