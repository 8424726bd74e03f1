"""Addresses of the page: names kept exactly, stale writes refused, nothing outside reachable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotate.helpers import Answer, Client, bits
from maskless.annotate.app import make_app
from maskless.annotate.session import Session

AWKWARD = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"quotes\" 'single' `back` \\",
    "&amp; &lt;",
    "\u202egnp.exe",
    "\u05e9\u05dc\u05d5\u05dd",
    "x" * 10_000,
    "=HYPERLINK(A1)",
    "+1",
    "-1",
    "@SUM(1)",
    "line\nbreak\r\nand\rmore\ttab",
    " spaces around ",
    "日本 🧬",
    "';DROP TABLE operations;--",
    "{{7*7}} ${7*7} %s %00 ../../etc/passwd",
]


class Expert:
    """One expert at one tab, who knows the revision of the last answer."""

    def __init__(self, client: Client, who: str) -> None:
        self.client, self.who, self.revision = client, who, 0

    def ask(self, path: str, **content: Any) -> Answer:
        answer = self.client.post(path, {"who": self.who, "revision": self.revision, **content})
        if answer.status == 200:
            self.revision = answer.json()["revision"]
        return answer

    def do(self, path: str, **content: Any) -> Any:
        answer = self.ask(path, **content)
        assert answer.status == 200, answer.body
        return answer.json()

    def name(self, group: str, name: str) -> Any:
        return self.do("/api/name", groups=[group], fields={"name": name})

    def groups(self) -> dict[str, Any]:
        state = self.client.get(f"/api/state?who={self.who}").json()
        return {group["id"]: group for group in state["groups"] if group["count"]}

    def codes(self) -> np.ndarray:
        return np.frombuffer(self.client.get(f"/api/codes?who={self.who}").body, "<u2")


@pytest.fixture(scope="module")
def session(study_folder: Path) -> Iterator[Session]:
    opened = Session(study_folder)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(session: Session) -> Client:
    return Client(make_app(session, Client.token, [Client.host], Client.cookie))


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/..%2fapp.py",
        "/assets/%2e%2e%2f%2e%2e%2fcells.h5ad",
        "/assets/..%5capp.py",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/index.html",
        "/assets/style.css%00.js",
        "/assets/%00",
        "/%00",
        "/..",
        "/../labels.sqlite",
        "/labels.sqlite",
        "/cells.h5ad",
        "/assets/" + "x" * 10_000,
        "/" + "x" * 10_000,
        "/api/cells/column/" + "x" * 10_000,
        "/api/cells/column/..%2f..%2fetc",
        "/api/cells/column/%00",
        "/api/table/" + "x" * 10_000,
        "/api/split/" + "x" * 10_000,
        "/api/split/%00",
        "/api/cell/99999999?who=ann",
        "/api/cell/" + "9" * 5000 + "?who=ann",
        "/api/cell/-1?who=ann",
        "/api/cells/activation/9999",
        "/api/channel/9999",
        "/api/tile/0/0/0/9999/0",
        "/api/tile/9/0/0/0/0",
        "/api/tile/0/9999/0/0/0",
        "/api/tile/0/0/9/0/0",
        "/api/tile/0/0/0/0",
    ],
)
def test_what_is_not_there_is_404(client: Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status == 404
    assert set(answer.json()["error"]) == {"kind", "message"}
    assert "Traceback" not in answer.body.decode()


def test_no_name_in_the_cells_leads_out_of_the_images_folder(tmp_path: Path) -> None:
    from annotate.helpers import clustering
    from maskless.annotate.places import Clustering
    from maskless.annotate.tiles import tiles_of

    outside = tmp_path / "outside.zarr"
    outside.mkdir()
    images = tmp_path / "images"
    images.mkdir()
    base = clustering()
    names = ("../outside", "a\0b")
    cells = Clustering(base.ids, base.codes_n, names, base.images_n, base.yx_n2)
    entries = [{"name": name, "shape_yx": [9, 9], "um_per_pixel": 1.0} for name in names]
    tiles = tiles_of(images, {"images": entries, "panel": []}, cells)
    assert [image.file for image in tiles.images] == [None, None]


@pytest.mark.parametrize("name", AWKWARD)
def test_any_name_is_stored_and_sent_back_exactly(
    client: Client, session: Session, name: str
) -> None:
    who = f"awkward{AWKWARD.index(name)}"
    expert = Expert(client, who)
    state = expert.do("/api/name", groups=["0"], fields={"name": name, "notes": name})
    assert state["groups"][0]["name"] == name
    assert expert.groups()["0"]["notes"] == name
    answer = client.get(f"/api/state?who={who}")
    assert answer.headers["content-type"] == "application/json"  # never shown as a page
    stored = session.store._db.execute(
        "SELECT fields FROM operations WHERE who = ?", (who,)
    ).fetchone()
    assert json.loads(stored[0])["0"] == {"name": name, "notes": name}
    table = client.get(f"/api/names.csv?who={who}")
    assert table.headers["content-type"] == "text/csv; charset=utf-8"
    assert table.headers["content-disposition"].startswith("attachment")
    again = Expert(client, f"{who}b")
    again.do("/api/import", text=table.body.decode())
    assert again.groups()["0"]["name"] == name


@pytest.mark.parametrize("name", ["\x00", "a\x1bb", "x" * 20_001])
def test_what_cannot_be_kept_is_refused_with_a_reason(client: Client, name: str) -> None:
    answer = Expert(client, "refused").ask("/api/name", groups=["0"], fields={"name": name})
    assert answer.status == 400
    assert "name" in answer.json()["error"]["message"]
    body = b'{"who": "refused", "revision": 0, "groups": ["0"], "fields": {"name": "\\ud800"}}'
    assert client.post("/api/name", body).status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"who": "ann"}',
        b'{"who": "ann", "revision": "0", "groups": ["0"], "fields": {"name": "x"}}',
        b'{"who": "ann", "revision": 0, "groups": ["0"], "fields": {"nome": "x"}}',
        b'{"who": "ann", "revision": 0, "groups": ["nowhere"], "fields": {"name": "x"}}',
        b'{"who": "ann", "revision": 0, "groups": [], "fields": {"name": "x"}}',
        b'{"who": "", "revision": 0, "groups": ["0"], "fields": {"name": "x"}}',
        b'{"who": "ann", "revision": 0, "groups": ["0"], "fields": {"color": "red;x:url(y)"}}',
        b'{"who": "ann", "revision": 0, "groups": ["0"], "fields": {}, "images": ["x"]}',
    ],
)
def test_requests_that_are_not_understood_change_nothing(
    client: Client, session: Session, body: bytes
) -> None:
    answer = client.post("/api/name", body)
    assert answer.status == 400
    assert set(answer.json()["error"]) == {"kind", "message"}
    assert session.store.history("ann").revision == 0


def test_two_tabs_with_one_cluster_are_a_conflict_and_nothing_is_lost(client: Client) -> None:
    one, two = Expert(client, "twice"), Expert(client, "twice")
    one.name("0", "from one")
    answer = two.ask("/api/name", groups=["0"], fields={"name": "from two"})
    assert answer.status == 409
    assert answer.json()["error"]["kind"] == "stale"
    assert two.groups()["0"]["name"] == "from one"
    two.revision = client.get("/api/state?who=twice").json()["revision"]
    two.name("0", "from two")
    told = [row["why"] for row in client.get("/api/history?who=twice").json()]
    assert told == ["0: name from two", "0: name from one"]


def test_merge_move_split_undo_and_redo(client: Client, session: Session) -> None:
    expert = Expert(client, "mover")
    start = expert.codes().copy()
    counts = {name: group["count"] for name, group in expert.groups().items()}
    expert.do("/api/merge", groups=["0", "1", "2"], into="1")
    merged = expert.groups()
    assert merged["1"]["count"] == counts["0"] + counts["1"] + counts["2"]
    assert "0" not in merged
    state = expert.do("/api/step", kind="undo")
    assert state["redo"] == "0, 2 merged into 1"
    assert (expert.codes() == start).all()
    expert.do("/api/step", kind="redo")
    assert expert.groups()["1"] == merged["1"]
    expert.do("/api/step", kind="undo")
    rows = [3, 5, 8, 13]
    expert.do("/api/move", cells=bits(rows, len(start)), name="rare")
    codes = expert.codes()
    assert np.flatnonzero(codes != start).tolist() == rows
    assert expert.groups()["selection.1"]["name"] == "rare"
    marker = session.cells.markers[3]
    above = float(np.median(session.cells.activations_nm[start == 1, 3]))
    expert.do("/api/split_by_marker", group="1", marker=marker, above=above)
    inside = expert.codes() == 1
    assert (session.cells.activations_nm[inside, 3] <= above).all()
    assert expert.groups()["1.1"]["origin"].startswith(f"1 with {marker} above")
    for _ in range(2):
        expert.do("/api/step", kind="undo")
    assert (expert.codes() == start).all()
    assert expert.ask("/api/step", kind="undo").status == 400


def test_versions_come_back_and_are_compared(client: Client) -> None:
    expert = Expert(client, "keeper")
    expert.name("0", "B")
    kept = expert.do("/api/version", name="first")["revision"]
    expert.name("0", "T")
    expert.do("/api/merge", groups=["1", "2"], into="1")
    query = f"first_who=keeper&second_who=keeper&first_operation={kept}&second_operation="
    found = client.get(f"/api/compare?{query}").json()
    assert {row["id"]: row["fields"] for row in found["differences"]}["0"] == {"name": ["B", "T"]}
    assert found["kappa"] < 1
    expert.do("/api/restore", operation=kept)
    assert client.get(f"/api/compare?{query}").json()["kappa"] == 1
    assert expert.groups()["0"]["name"] == "B"


def test_two_experts_disagree_and_take_over(client: Client) -> None:
    ann, bob = Expert(client, "ann2"), Expert(client, "bob2")
    ann.name("0", "B")
    ann.name("1", "T")
    state = bob.name("0", "plasma")
    assert state["conflicts"]["0"]["ann2"] == "B"
    bob.do("/api/adopt", source="ann2")
    assert [bob.groups()[g]["name"] for g in "01"] == ["plasma", "T"]
    state = bob.do("/api/adopt", source="ann2", groups=["0"])
    assert bob.groups()["0"]["name"] == "B"
    assert state["conflicts"]["0"]["bob2"] == state["conflicts"]["0"]["ann2"]


def test_a_name_may_hold_in_some_images_only(client: Client, session: Session) -> None:
    expert = Expert(client, "places")
    image = session.cells.clustering.images[1]
    expert.name("0", "B")
    expert.do("/api/name", groups=["0"], fields={"name": "GC B"}, images=[image])
    assert expert.groups()["0"]["by_image"] == {image: "GC B"}
    table = client.get("/api/table/phenotype?who=places").json()
    assert {"B", "GC B"} <= set(table["ids"])
    expert.do("/api/name", groups=["0"], fields={"name": ""}, images=[image])
    assert expert.groups()["0"]["by_image"] == {}
    for fields, images in (({"broad": "x"}, [image]), ({"name": "x"}, ["nowhere"])):
        assert expert.ask("/api/name", groups=["0"], fields=fields, images=images).status == 400


def test_arrays_are_those_of_the_study(client: Client, session: Session) -> None:
    study = client.get("/api/study").json()
    cells = session.cells
    n = study["cells"]
    assert n == cells.count
    umap = np.frombuffer(client.get("/api/cells/umap").body, "<f4").reshape(n, 2)
    np.testing.assert_array_equal(umap, cells.umap_n2)
    xy = np.frombuffer(client.get("/api/cells/xy").body, "<f4").reshape(n, 2)
    np.testing.assert_array_equal(xy[:, ::-1], cells.clustering.yx_n2)
    answer = client.get("/api/cells/activation/2")
    low, high = float(answer.headers["x-low"]), float(answer.headers["x-high"])
    values = np.frombuffer(answer.body, np.uint8) / 255 * (high - low) + low
    own = np.clip(cells.activations_nm[:, 2], low, high)
    assert np.abs(values - own).max() <= (high - low) / 255
    table = client.get("/api/table/group?who=nobody").json()
    row = table["ids"].index("0")
    mean = cells.activations_nm[cells.clustering.codes_n == cells.clustering.ids.index("0")].mean(0)
    np.testing.assert_allclose(table["raw"][row], mean, atol=1e-4)


def test_a_cell_and_why(client: Client, session: Session) -> None:
    cell = client.get("/api/cell/7?who=nobody").json()
    yx = session.cells.clustering.yx_n2
    assert [cell["y"], cell["x"]] == pytest.approx(yx[7].tolist())
    inside = np.flatnonzero(session.cells.clustering.images_n == cell["image"])
    distance = np.linalg.norm(yx[inside] - yx[7], axis=1)
    assert cell["beside"][0]["row"] == inside[np.argsort(distance, kind="stable")[1]]
    assert all(other["row"] != 7 for other in cell["alike"])
    for path, content in (
        ("/api/why", {"first": {"who": "x", "groups": ["0"]}}),
        (
            "/api/why",
            {"first": {"who": "x", "groups": ["0"]}, "second": {"who": "x", "groups": ["1"]}},
        ),
    ):
        shares = client.post(path, {"who": "x", **content}).json()
        assert sum(row["share"] for row in shares) == pytest.approx(1)
        assert {row["marker"] for row in shares} == set(session.cells.markers)
    shares = client.get("/api/cell/7/contributions").json()
    assert sum(row["share"] for row in shares) == pytest.approx(1)


def test_settings_are_kept(client: Client) -> None:
    value = {"values": "z", "order": ["2", "1"]}
    assert client.post("/api/setting", {"who": "ann", "key": "heat", "value": value}).status == 200
    assert client.get("/api/settings?who=ann").json() == {"heat": value}
    assert client.get("/api/settings?who=bob").json() == {}


def test_faults_of_our_own_tell_nothing_of_the_inside(
    client: Client, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(session, "describe", fails)
    answer = client.get("/api/study")
    assert answer.status == 500
    assert answer.json()["error"]["kind"] == "fault"
    assert "secret" not in answer.body.decode()
