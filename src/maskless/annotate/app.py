"""Addresses of the page and its data. Every one stands behind the guard.

Answers are JSON, or bytes where arrays are large; every error has the shape of
:func:`maskless.annotate.guard.error_body`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from maskless.annotate import asked, writing
from maskless.annotate.guard import Guard, TooLargeError, body_of, error_body
from maskless.annotate.session import Session
from maskless.annotate.spreadsheet import to_csv
from maskless.annotate.store import StaleError
from maskless.errors import InputError, MasklessError

Model = TypeVar("Model", bound=asked.Asked)
Endpoint = Callable[[Request], Awaitable[Response]]

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_BYTES = "application/octet-stream"


def make_app(session: Session, token: str, hosts: list[str], cookie: str) -> ASGIApp:
    """The whole server as one ASGI application.

    Parameters
    ----------
    session
        What is shown.
    token, hosts, cookie
        See :class:`maskless.annotate.guard.Guard`.
    """
    app = Starlette(
        routes=routes(session),
        exception_handlers={
            MasklessError: _on_own_error,
            TooLargeError: _on_too_large,
            HTTPException: _on_http_error,
            Exception: _on_fault,
        },
    )
    return Guard(app, token, hosts, cookie)


def routes(session: Session) -> list[Route]:
    """The table of addresses."""
    assets = {item.name: item.read_bytes() for item in _page_files()}

    async def page(request: Request) -> Response:
        return Response(assets["index.html"], media_type=_TYPES[".html"])

    async def asset(request: Request) -> Response:
        # Looked up in a table made at the start: no path of a request ever reaches the disk.
        name = request.path_params["name"]
        if name not in assets or name == "index.html":
            raise HTTPException(404)
        return Response(assets[name], media_type=_TYPES["." + name.rsplit(".", 1)[-1]])

    return [
        Route("/", page),
        Route("/assets/{name}", asset),
        *_reading(session),
        *_writing(session),
    ]


def _reading(session: Session) -> list[Route]:
    cells = session.cells
    place = cells.clustering

    def column(name: str) -> bytes:
        if name not in cells.columns:
            raise HTTPException(404)
        return cells.columns[name].codes_n.astype("<u2").tobytes()

    def activation(request: Request) -> Response:
        values, low, high = session.activation(_whole(request, "marker"))
        return Response(
            values.tobytes(), media_type=_BYTES, headers={"x-low": repr(low), "x-high": repr(high)}
        )

    def codes(request: Request) -> Response:
        return _bytes(session.codes(_who(request)).tobytes())

    def channel(request: Request) -> Response:
        number = _whole(request, "channel")
        if number >= len(session.tiles.channels):
            raise HTTPException(404)
        scale = session.tiles.contrast(number)
        return _json({"top": scale.top, "low": scale.low, "high": scale.high})

    def tile(request: Request) -> Response:
        keys = ("image", "channel", "level", "row", "column")
        return _bytes(session.tiles.tile(*(_whole(request, key) for key in keys)))

    def versions(name: str) -> Callable[[Request], Response]:
        return lambda request: _json(getattr(session, name)(_who(request)))

    def compare(request: Request) -> Response:
        query = request.query_params
        sides = [
            (query.get(f"{side}_who", ""), _version(query.get(f"{side}_operation")))
            for side in ("first", "second")
        ]
        return _json(session.compare(sides[0], sides[1]))

    def csv(request: Request) -> Response:
        return Response(
            to_csv(session.store.history(_who(request)).labels),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": 'attachment; filename="clusters.csv"'},
        )

    def contributions(request: Request) -> Response:
        return _json(session.why.cell(_row(request)))

    gets: dict[str, Callable[[Request], Response]] = {
        "/api/study": lambda request: _json(session.describe()),
        "/api/cells/umap": lambda request: _bytes(cells.umap_n2.astype("<f4").tobytes()),
        "/api/cells/image": lambda request: _bytes(place.images_n.astype("<u2").tobytes()),
        "/api/cells/xy": lambda request: _bytes(place.yx_n2[:, ::-1].astype("<f4").tobytes()),
        "/api/cells/column/{name}": lambda r: _bytes(column(r.path_params["name"])),
        "/api/cells/activation/{marker}": activation,
        "/api/codes": codes,
        "/api/state": versions("state"),
        "/api/history": versions("history"),
        "/api/settings": lambda request: _json(session.store.settings(_who(request))),
        "/api/table/group": lambda request: _json(session.table(_who(request), "group")),
        "/api/table/phenotype": lambda request: _json(session.table(_who(request), "phenotype")),
        "/api/cell/{row}": lambda r: _json(session.cell(_who(r), _row(r))),
        "/api/cell/{row}/contributions": contributions,
        "/api/channel/{channel}": channel,
        "/api/tile/{image}/{channel}/{level}/{row}/{column}": tile,
        "/api/compare": compare,
        "/api/names.csv": csv,
        "/api/split/{job}": lambda r: _json(session.jobs.job(r.path_params["job"]).as_json()),
    }
    return [Route(path, _in_thread(function, "{" in path)) for path, function in gets.items()]


def _writing(session: Session) -> list[Route]:
    def gallery(ask: asked.AskGallery) -> Response:
        rows, found = session.gallery(ask)
        return Response(
            rows.astype("<u4").tobytes() + found.tobytes(),
            media_type=_BYTES,
            headers={"x-shape": json.dumps(list(found.shape))},
        )

    def setting(ask: asked.Setting) -> Response:
        session.store.set_setting(ask.who, ask.key, ask.value)
        return _json({"saved": True})

    def start(ask: asked.StartSplit) -> Response:
        rows = session.rows(
            asked.Chosen(who=ask.who, groups=[] if ask.cells else [ask.group], cells=ask.cells)
        )
        job = session.jobs.start(
            ask.group, rows, k=ask.k, resolution=ask.resolution, min_size=ask.min_size
        )
        return _json(job.as_json())

    def change(function: Callable[[Session, Any], Any]) -> Callable[[Any], Response]:
        def write(ask: asked.Write) -> Response:
            done = function(session, ask)
            more = {"unknown": done[1]} if isinstance(done, tuple) else {}
            return _json({**session.state(ask.who), **more})

        return write

    posts: dict[str, tuple[type[asked.Asked], Callable[[Any], Response]]] = {
        "/api/name": (asked.SetFields, change(writing.set_fields)),
        "/api/merge": (asked.Merge, change(writing.merge)),
        "/api/move": (asked.Move, change(writing.move)),
        "/api/split_by_marker": (asked.SplitByMarker, change(writing.split_by_marker)),
        "/api/split": (asked.StartSplit, start),
        "/api/split/cancel": (
            asked.CancelSplit,
            lambda ask: _json(session.jobs.cancel(ask.job).as_json()),
        ),
        "/api/split/apply": (asked.ApplySplit, change(writing.apply_split)),
        "/api/step": (asked.Step, change(writing.step)),
        "/api/version": (asked.Version, change(writing.version)),
        "/api/restore": (asked.Restore, change(writing.restore)),
        "/api/adopt": (asked.Adopt, change(writing.adopt)),
        "/api/import": (asked.Import, change(writing.import_table)),
        "/api/export": (asked.Export, lambda ask: _json(session.export(ask.who))),
        "/api/setting": (asked.Setting, setting),
        "/api/why": (asked.AskWhy, lambda ask: _json(session.explain(ask))),
        "/api/gallery": (asked.AskGallery, gallery),
    }
    return [
        Route(path, _with_body(model, function), methods=["POST"])
        for path, (model, function) in posts.items()
    ]


def _in_thread(function: Callable[[Request], Response], names_something: bool) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(function, request)
        except InputError as error:
            if not names_something:
                raise
            return _error(404, "address", str(error))

    return endpoint


def _with_body(model: type[Model], function: Callable[[Model], Response]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        body = await body_of(request.receive)
        try:
            ask = model.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"the request is not understood: {where} {first['msg']}") from None
        # A tab that is closed while its change is written must not leave it half done.
        return await asyncio.shield(run_in_threadpool(function, ask))

    return endpoint


def _page_files() -> list[Any]:
    folder = files("maskless.annotate") / "page"
    return [item for item in folder.iterdir() if item.name.endswith(tuple(_TYPES))]


def _who(request: Request) -> str:
    who = request.query_params.get("who", "")
    if not 0 < len(who) <= 200:
        raise InputError("the request does not say whose labels")
    return who


def _whole(request: Request, key: str) -> int:
    text = request.path_params[key]
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(404)
    return int(text)


def _row(request: Request) -> int:
    return _whole(request, "row")


def _version(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise InputError("there is no such version")
    return int(text)


def _json(content: Any) -> Response:
    return Response(
        json.dumps(content, ensure_ascii=False, allow_nan=False, default=_as_plain),
        media_type="application/json",
    )


def _as_plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot send a {type(value).__name__}")


def _bytes(content: bytes) -> Response:
    return Response(content, media_type=_BYTES)


def _error(status: int, kind: str, message: str) -> Response:
    return Response(error_body(kind, message), status, media_type="application/json")


async def _on_own_error(request: Request, error: Exception) -> Response:
    if isinstance(error, StaleError):
        return _error(409, "stale", str(error))
    return _error(400, "input", str(error))


async def _on_too_large(request: Request, error: Exception) -> Response:
    return _error(413, "size", "the request is too large")


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _error(status, "address", "there is nothing here" if status == 404 else "not allowed")


async def _on_fault(request: Request, error: Exception) -> Response:
    return _error(500, "fault", f"{type(error).__name__}: this is a fault of maskless")
