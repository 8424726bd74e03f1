"""Nobody but our own page talks to the server: token, Host, Origin, headers, sizes."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from annotate.helpers import Client
from maskless.annotate import guard
from maskless.annotate.app import make_app, routes
from maskless.annotate.guard import MOST_BYTES
from maskless.annotate.session import Session


@pytest.fixture(scope="module")
def session(study_folder: Path) -> Iterator[Session]:
    opened = Session(study_folder)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(session: Session) -> Client:
    return Client(make_app(session, Client.token, [Client.host], Client.cookie))


@pytest.fixture(scope="module")
def every(session: Session) -> list[tuple[str, str]]:
    """Method and an address of each route of the app's own table, and of one that is not there."""
    filled = {"name": "style.css", "job": "x"}
    found = []
    for route in routes(session):
        path = re.sub(r"{(\w+)}", lambda m: filled.get(m[1], "0"), route.path)
        found += [(method, path) for method in sorted(route.methods or ())]
    assert len(found) > 40
    return [*found, ("GET", "/nowhere"), ("POST", "/nowhere"), ("PUT", "/api/name")]


def refused(client: Client, method: str, path: str, kind: str, **changed: str | None) -> None:
    answer = client.send(method, path, b"{}", **changed)
    assert answer.status == 403, (method, path, changed)
    assert answer.json()["error"]["kind"] == kind
    assert client.token not in answer.body.decode()


@pytest.mark.parametrize(
    "cookie",
    [
        None,
        "",
        "maskless_8000=",
        "maskless_8000=wrong",
        "maskless_8000=the-secret-toke",
        "maskless_8000=the-secret-token2",
        "maskless_8001=the-secret-token",
        "maskless_8000=\xff\xfe",
        '"; maskless_8000',
    ],
)
def test_every_route_needs_the_token(
    client: Client, every: list[tuple[str, str]], cookie: str | None
) -> None:
    for method, path in every:
        refused(client, method, path, "token", cookie=cookie)


def test_the_token_in_the_address_opens_the_page_only(
    client: Client, every: list[tuple[str, str]]
) -> None:
    for method, path in every:
        if (method, path) != ("GET", "/"):
            refused(client, method, f"{path}?token={client.token}", "token", cookie=None)
    answer = client.get(f"/?token={client.token}", cookie=None)
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert cookie == f"{client.cookie}={client.token}; HttpOnly; SameSite=Strict; Path=/"
    assert client.token not in answer.body.decode()
    for wrong in ("x", client.token[:-1], client.token + "2", "%00", "\u00fc"):
        answer = client.get(f"/?token={wrong}", cookie=None)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_the_token_is_compared_in_constant_time(
    client: Client, every: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []
    in_constant_time = secrets.compare_digest

    def compare(given: bytes, own: bytes) -> bool:
        compared.append(given)
        return in_constant_time(given, own)

    monkeypatch.setattr(guard.secrets, "compare_digest", compare)
    for method, path in every:
        client.send(method, path, b"{}", cookie=f"{client.cookie}=guess")
        assert compared.pop() == b"guess"
    client.get("/?token=guess")
    assert compared.pop() == b"guess"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8000",
        "127.0.0.1",
        "127.0.0.1:8001",
        "127.0.0.1:8000.",
    ],
)
def test_a_foreign_host_is_refused(
    client: Client, every: list[tuple[str, str]], host: str | None
) -> None:
    for method, path in every:
        refused(client, method, path, "host", host=host)
    refused(client, "GET", f"/?token={client.token}", "host", host=host)


def test_two_hosts_are_none(client: Client) -> None:
    own = [(k.encode(), v.encode()) for k, v in client.headers("GET").items()]
    for other in (b"evil.example", b"127.0.0.1:8000"):
        assert client.raw("GET", "/api/study", b"", [*own, (b"Host", other)]).status == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"origin": None},
        {"origin": "null"},
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"x_maskless": None},
        {"x_maskless": "2"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_post_from_another_site_is_refused(
    client: Client, session: Session, every: list[tuple[str, str]], changed: dict[str, str | None]
) -> None:
    for method, path in every:
        if method in ("POST", "PUT") or changed.get("origin") or "sec_fetch_site" in changed:
            refused(client, method, path, "origin", **changed)
    name = {"who": "ann", "revision": 0, "groups": ["0"], "fields": {"name": "B"}}
    assert client.post("/api/name", name, **changed).status == 403
    assert session.store.experts() == []


def test_no_web_socket_is_answered(client: Client) -> None:
    import asyncio

    async def nothing(*_: object) -> dict[str, str]:
        raise AssertionError("not to be called")

    scope = {"type": "websocket", "path": "/", "headers": []}
    asyncio.run(client.app(scope, nothing, nothing))


def test_every_answer_forbids_what_is_not_ours(
    client: Client, every: list[tuple[str, str]]
) -> None:
    answers = [client.send(method, path, b"{}") for method, path in every]
    answers += [client.send(method, path, b"{}", cookie=None) for method, path in every]
    answers += [client.get(f"/?token={client.token}"), client.get("/?token=x")]
    assert {answer.status for answer in answers} >= {200, 400, 403, 404, 405}
    for answer in answers:
        rules = dict(
            rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; ")
        )
        assert rules["default-src"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
        assert rules["img-src"] == "'self' blob: data:"
        assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_has_nothing_from_elsewhere_and_no_markup_from_text() -> None:
    page = files("maskless.annotate") / "page"
    texts = {item.name: item.read_text(encoding="utf-8") for item in page.iterdir()}
    assert {"index.html", "style.css", "main.js"} <= set(texts)
    for name, text in texts.items():
        assert not re.search(r"https?://|//\w+\.\w+/|@import|url\(", text), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|<style|style=", texts["index.html"])


def test_large_bodies_are_refused_whatever_they_say_of_their_length(client: Client) -> None:
    large = b'{"who": "' + b"x" * MOST_BYTES + b'"}'
    for length in (None, str(len(large)), "2", "nonsense", "-1", "1e3"):
        answer = client.post("/api/setting", large, content_length=length)
        assert answer.status == 413, length
        assert answer.json()["error"]["kind"] == "size"
    assert client.post("/api/setting", b"{}", content_length=str(MOST_BYTES + 1)).status == 413
