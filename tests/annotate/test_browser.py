"""The page in a real browser: experts name, merge, split, draw, look, disagree and export."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata
import pandas as pd
import pytest

from annotate.browser import Tab, chromium
from annotate.running import Running, serve

Opens = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def running(browser: Any, study_folder: Path) -> Iterator[Running]:
    names = sorted(path.stem for path in (study_folder / "images").glob("*.zarr"))
    rows = [f"{name},patient {i}" for i, name in enumerate(names)]
    (study_folder / "images.csv").write_text("\n".join(["image,patient", *rows]))
    with serve(study_folder) as started:
        yield started


@pytest.fixture
def opens(browser: Any, running: Running) -> Iterator[Opens]:
    """Opens tabs; at the end nothing was complained of and nothing left this host."""
    tabs: list[Tab] = []

    def open_tab(who: str, at: Running = running) -> Tab:
        tabs.append(Tab(browser, at, who))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.close()
    for tab in tabs:
        assert tab.complaints == []
        assert all(host.startswith("127.0.0.1:") for host in tab.hosts)


@contextmanager
def held(page: Any, pattern: str) -> Iterator[list[Any]]:
    """Requests that wait until the end: a server that is slow where it matters."""
    waiting: list[Any] = []
    page.route(pattern, lambda route: waiting.append(route))
    yield waiting
    while waiting:
        waiting.pop(0).continue_()
    page.unroute(pattern)


def largest(tab: Tab) -> list[str]:
    groups = tab.groups()
    return sorted((g for g in groups if g != "-1"), key=lambda g: -groups[g]["count"])


def test_naming_with_the_keyboard_undo_and_redo(opens: Opens) -> None:
    tab = opens("keys")
    first, second = (
        row.get_attribute("data-id") for row in tab.page.locator("#names tr").all()[1:3]
    )
    tab.type_name(first, "B cell")
    tab.page.keyboard.insert_text("T cell")  # Enter went on to the next row
    tab.page.keyboard.press("Enter")
    tab.saved()
    assert [tab.groups()[g]["name"] for g in (first, second)] == ["B cell", "T cell"]
    assert len(tab.fetch("/api/history?who=keys")) == 2  # each name is saved once
    tab.press("Escape", "j", "u")
    tab.until("document.querySelector('#names tr[data-id] input[type=checkbox]').checked")
    assert tab.groups()[first]["unsure"]
    for wanted in ("T cell", "", ""):
        before = tab.fetch("/api/state?who=keys")["revision"]
        tab.press("Control+z")
        tab.until(lambda old=before: tab.fetch("/api/state?who=keys")["revision"] > old)
        assert tab.groups()[second]["name"] == wanted
    assert not tab.groups()[first]["name"]
    tab.until("document.getElementById('undo').disabled")
    tab.press("Control+Shift+z")
    tab.until(lambda: tab.shown(first) == "B cell")
    tab.press("Escape", "j", "j", "o")
    tab.until(lambda: tab.shown(second) == "other")


def test_awkward_names_are_shown_as_text(opens: Opens) -> None:
    tab = opens("awkward")
    group = largest(tab)[0]
    for name in ("<img src=x onerror=alert(1)>\"'", "\u202egnp.exe =1+1", "x" * 10_000):
        tab.type_name(group, name)
        tab.saved()
        tab.until(lambda name=name: tab.groups()[group]["name"] == name)
        assert tab.shown(group) == name
        tab.press("Escape")
        tab.select(group)
        heading = tab.page.locator("#detail h3").first
        tab.until(lambda name=name, at=heading: at.text_content().startswith(name))
    assert tab.page.locator("#detail img, #names img").count() == 0
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 1280
    tab.select(largest(tab)[1])
    for dialog in ("versions", "experts"):
        tab.page.click(f"#{dialog}")
        tab.page.wait_for_selector("dialog[open]")
        tab.page.keyboard.press("Escape")


def test_merge_and_split(opens: Opens) -> None:
    tab = opens("merger")
    start = tab.groups()
    a, b = largest(tab)[:2]
    tab.select(a)
    tab.select(b, also=True)
    tab.press("w")
    tab.page.wait_for_selector("#detail .bar")
    shares = re.findall(r"(-?[\d.]+) %", tab.detail().split("activations.")[1])
    assert sum(float(s) for s in shares) == pytest.approx(100, abs=1)
    tab.press("m")
    tab.until(lambda: b not in tab.groups())
    both = start[a]["count"] + start[b]["count"]
    assert tab.groups()[a]["count"] == both

    tab.page.wait_for_selector(f"#selection-text:text('{a}: {both} cells')")
    with held(tab.page, "**/api/split") as splits:
        tab.press("s")  # PhenoGraph in the background
        tab.until(lambda: splits)
        tab.press("u")  # the details are drawn anew before the server answers
        tab.page.wait_for_selector("#detail button:text-is('sure now')")
    tab.page.wait_for_selector("#detail progress")
    tab.page.click("#detail button:text-is('cancel')")
    tab.page.wait_for_selector("text=cancelled")
    tab.page.fill("#detail input[aria-label=neighbours]", "10")
    tab.page.click("#detail button[title=S]")
    tab.page.wait_for_selector("#detail button:text-matches('make [0-9]+ groups')")
    tab.page.click("#detail button:text-matches('make [0-9]+ groups')")
    tab.page.wait_for_selector(f'#names tr[data-id="{a}.2"]')
    parts = {g: v["count"] for g, v in tab.groups().items() if g.split(".")[0] == a}
    assert sum(parts.values()) == both

    tab.press("Control+z")
    tab.until(lambda: f"{a}.1" not in tab.groups())
    tab.select(a)
    tab.page.wait_for_selector("select[aria-label='marker of the threshold']")
    tab.page.click("#detail button:text-is('split')")
    tab.page.wait_for_selector(f'#names tr[data-id="{a}.1"]')
    assert tab.groups()[f"{a}.1"]["origin"].startswith(f"{a} with ")
    for _ in range(3):  # the threshold, the mark, the merge
        tab.press("Control+z")
    tab.until(lambda: f"{a}.1" not in tab.groups())
    tab.page.wait_for_selector(f'#names tr[data-id="{b}"]')
    assert {g: v["count"] for g, v in tab.groups().items()} == {
        g: v["count"] for g, v in start.items()
    }


def test_lasso_gallery_tissue_and_toggles(opens: Opens) -> None:
    tab = opens("looker")
    page = tab.page
    page.wait_for_selector("#gallery-empty:text('Select a cluster')")
    page.keyboard.press("l")
    box = page.locator("#umap-over").bounding_box()
    corners = [(0.02, 0.02), (0.5, 0.02), (0.5, 0.98), (0.02, 0.98)]
    places = [(box["x"] + u * box["width"], box["y"] + v * box["height"]) for u, v in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    page.wait_for_selector("#detail h3:text('cells drawn around')")
    half = box["width"] / 2
    inside = page.evaluate(
        "([half, n]) => [...Array(n).keys()].filter(i => umapTest.place(i)[0] < half).length",
        [half, tab.fetch("/api/study")["cells"]],
    )
    selected = int(re.search(r"\d+", tab.detail().replace(",", ""))[0])
    assert abs(selected - inside) <= 2
    page.fill("input[aria-label='name of the new group']", "drawn")
    page.click("#detail button:text-is('move')")
    page.wait_for_selector('#names tr[data-id="selection.1"].selected')
    assert (
        tab.groups()["selection.1"] | {"count": selected, "name": "drawn"}
        == tab.groups()["selection.1"]
    )

    tab.until("document.getElementById('gallery-empty').textContent === ''")
    shown = tab.pixels("gallery")
    tab.press("3")
    tab.until("document.querySelector('#gallery-kinds [data-kind=random]').ariaPressed === 'true'")
    tab.changed("gallery", shown)
    shown = tab.pixels("gallery")
    tab.press("Shift+2")  # a marker off: the same colours in both views
    tab.changed("gallery", shown)
    page.locator("#gallery").click(position={"x": 30, "y": 30})
    page.wait_for_selector("#detail h3:text('Activations')")
    row = int(re.search(r"Cell (\d+)", tab.detail())[1])
    x, y = page.evaluate("row => window.tissueTest.place(row)", row)
    canvas = page.locator("#tissue").bounding_box()
    assert [x, y] == pytest.approx([canvas["width"] / 2, canvas["height"] / 2], abs=3)

    page.click("#tissue-fit")
    other = next(
        i
        for i in range(200)
        if i != row and page.evaluate("i => window.tissueTest.place(i)[0] > 0", i)
    )
    image = tab.fetch(f"/api/cell/{other}?who=looker")["image"]
    page.select_option("#image", str(image))
    x, y = page.evaluate("row => window.tissueTest.place(row)", other)
    page.locator("#tissue").click(position={"x": x, "y": y})
    page.wait_for_selector(f"#detail h3:text('Cell {other}:')")
    page.wait_for_selector("#detail .bar")

    for toggle in ("centres", "only"):
        before = tab.pixels("tissue")
        page.click(f"#{toggle}")
        if toggle == "centres":
            tab.changed("tissue", before)
        page.click(f"#{toggle}")
    before = tab.pixels("umap-points")
    page.select_option("#colour", "column:patient")
    tab.changed("umap-points", before)
    assert "patient 1" in page.locator("#umap-legend").inner_text()
    before = tab.pixels("heat")
    for by in ("0-1", "bubble"):
        page.select_option("#heat-values", by)
        tab.changed("heat", before)
        before = tab.pixels("heat")
    page.select_option("#heat-bars", "patient")
    for view in ("umap", "tissue", "heat", "gallery", "detail", "naming"):
        page.click(f"#{view}-panel .wide")
        page.wait_for_selector(f"#{view}-panel.enlarged")
        tab.press("Escape")
        page.wait_for_selector("main:not(.one)")


def test_what_is_typed_outlives_late_answers(opens: Opens) -> None:
    tab = opens("slow")
    page = tab.page
    first, second = largest(tab)[:2]
    start = tab.groups()
    with held(page, "**/api/cells/column/*") as columns:  # these images are not known yet
        tab.select(first)
        page.fill("input[aria-label='name in these images']", "here only")
        page.keyboard.press("Tab")
        tab.until(lambda: columns)
    tab.until(lambda: list(tab.groups()[first]["by_image"].values()) == ["here only"])
    tab.saved()

    with held(page, "**/api/name") as names:  # two names typed before the first is saved
        tab.type_name(first, "B cell")
        tab.type_name(second, "T cell")
        tab.until(lambda: names)
        names.pop().continue_()
        tab.until(lambda: names)
        assert tab.shown(second) == "T cell"
    tab.saved()
    tab.press("Escape")
    tab.select(first)
    page.click("#detail textarea")
    page.keyboard.insert_text("a note")
    box = page.locator("#detail button:text-is('mark unsure')").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()  # leaves the note, which is saved before the mouse is up
    tab.until(lambda: tab.groups()[first]["notes"] == "a note")
    tab.saved()
    page.mouse.up()
    tab.until(lambda: tab.groups()[first]["unsure"])

    markers = page.locator("select[aria-label='marker of the threshold'] option").all_inner_texts()
    page.select_option("select[aria-label='marker of the threshold']", markers[1])
    page.fill("input[aria-label=threshold]", "0.07")
    tab.press("u")
    page.wait_for_selector("#detail button:text-is('mark unsure')")
    assert page.input_value("select[aria-label='marker of the threshold']") == markers[1]
    assert page.input_value("input[aria-label=threshold]") == "0.07"

    tab.select(second, also=True)
    tab.press("m")
    tab.until(lambda: len(tab.groups()) == len(start) - 1)
    tab.saved()
    left = next(group for group in (first, second) if group in tab.groups())
    page.wait_for_selector(f'#names tr[data-id="{left}"].selected')
    page.wait_for_selector("#detail textarea")
    with held(page, "**/api/codes?*") as codes:  # cells move while a note is typed
        tab.press("Control+z")
        tab.until(lambda: codes)
        page.click("#detail textarea")
        page.keyboard.insert_text("more: ")
    page.wait_for_selector(f'#names tr[data-id="{second}"]')
    assert "more: " in page.input_value("#detail textarea")
    tab.press("Escape")
    tab.until(lambda: "more: " in tab.groups()[left]["notes"])


def test_the_last_choice_wins_over_late_answers(opens: Opens) -> None:
    tab = opens("quick")
    page = tab.page
    a, b = largest(tab)[:2]
    count = tab.groups()[a]["count"]
    boxes = page.locator("#channels select[aria-label=channel]")
    shown = [box.input_value() for box in boxes.all()]
    names = boxes.first.locator("option").all_inner_texts()
    free = [name for name in names if name not in shown][:3]
    with held(page, "**/api/channel/*") as asked:
        boxes.nth(0).select_option(free[0])
        boxes.nth(1).select_option(free[1])
        boxes.nth(1).select_option(free[2])
        tab.until(lambda: len(asked) == 3)
        while asked:  # the last first
            asked.pop().continue_()
            page.wait_for_timeout(50)
    tab.until(lambda: [box.input_value() for box in boxes.all()] == [free[0], free[2], *shown[2:]])

    tab.select(a)
    page.fill("input[aria-label=threshold]", "0.001")
    with held(page, "**/api/codes?*") as codes:
        page.click("#detail button:text-is('split')")
        tab.until(lambda: codes)
        tab.select(b)  # something else is looked at before the cells have moved
    page.wait_for_selector(f'#names tr[data-id="{a}.1"]')
    page.wait_for_selector(f'#names tr[data-id="{b}"].selected')
    part = page.evaluate(
        """async ([part, who]) => {
            const ask = (path) => fetch(`/api/${path}?who=${who}`);
            const { groups } = await (await ask("state")).json();
            const codes = new Uint16Array(await (await ask("codes")).arrayBuffer());
            return codes.indexOf(groups.findIndex((group) => group.id === part));
        }""",
        [f"{a}.1", "quick"],
    )
    page.select_option("#image", str(tab.fetch(f"/api/cell/{part}?who=quick")["image"]))
    x, y = page.evaluate("row => tissueTest.place(row)", part)
    with held(page, "**/api/codes?*") as codes:
        tab.press("Control+z")
        tab.until(lambda: codes)
        page.locator("#tissue").click(position={"x": x, "y": y})  # its group is just going
        page.wait_for_selector("#detail h3:text('Activations')")
    tab.until(lambda: tab.row(a).locator("td").nth(2).inner_text() == f"{count:,}")
    assert f"{a}.1" not in tab.groups()


def test_a_conflict_is_asked_about_even_over_another_dialog(opens: Opens) -> None:
    one, two = opens("over"), opens("over")
    group = largest(one)[0]
    two.page.click("#versions")
    two.page.fill("input[aria-label='name of this version']", "mine")
    one.type_name(group, "from one")
    one.saved()
    two.page.click("dialog button:text-is('keep this version')")
    two.page.wait_for_selector("dialog[open] >> text=changed elsewhere")
    two.page.click("dialog button:text-is('do mine on top')")
    two.until(lambda: "version" in [r["kind"] for r in two.fetch("/api/history?who=over")])
    for tab in (one, two):
        tab.complaints = [text for text in tab.complaints if "409" not in text]


def test_two_tabs_in_conflict_lose_nothing(opens: Opens) -> None:
    one, two = opens("both"), opens("both")
    group = largest(one)[0]
    one.type_name(group, "from one")
    one.saved()
    two.type_name(group, "from two")
    two.page.wait_for_selector("dialog[open] >> text=changed elsewhere")
    told = two.page.locator("#dialog").inner_text()
    assert "from one" in told
    assert "from two" in told
    assert two.groups()[group]["name"] == "from one"
    two.page.click("dialog button:text-is('do mine on top')")
    two.until(lambda: two.groups()[group]["name"] == "from two")
    assert [row["why"] for row in one.fetch("/api/history?who=both")] == [
        f"{group}: name from two",
        f"{group}: name from one",
    ]
    # A conflict is no fault; Chromium writes every 409 into its console.
    for tab in (one, two):
        tab.complaints = [text for text in tab.complaints if "409" not in text]


def test_experts_versions_history_and_tables(opens: Opens, running: Running) -> None:
    ann, bob = opens("ann"), opens("bob")
    a, b = largest(ann)[:2]
    ann.type_name(a, "B cell")
    ann.type_name(b, "T cell")
    ann.saved()
    bob.type_name(a, "plasma cell")
    bob.saved()
    bob.page.click("#experts")
    bob.page.select_option("dialog select", "ann")
    bob.page.click("dialog button:text-is('compare')")
    bob.page.wait_for_selector("dialog >> text=Cohen's kappa")
    bob.page.click("dialog button:text-is('take over names where I have none')")
    bob.until(lambda: bob.shown(b) == "T cell")
    bob.page.wait_for_selector(f'#names tr[data-id="{a}"].conflict')

    bob.page.click("#versions")
    bob.page.fill("input[aria-label='name of this version']", "first")
    bob.page.click("dialog button:text-is('keep this version')")
    bob.page.wait_for_selector("dialog td:text-is('first')")
    bob.page.keyboard.press("Escape")
    bob.type_name(a, "NK cell")
    bob.saved()
    bob.press("h")
    bob.page.wait_for_selector("#detail span:text('NK cell')")
    bob.page.click("#versions")
    bob.page.click("dialog button:text-is('bring back')")
    bob.until(lambda: bob.shown(a) == "plasma cell")

    bob.page.click("#tables")
    with bob.page.expect_download() as download:
        bob.page.click("dialog a:text-is('clusters.csv')")
    table = pd.read_csv(download.value.path(), dtype=str)
    assert dict(zip(table["cluster"], table["name"], strict=True))[a] == "plasma cell"
    content = io.StringIO()
    pd.DataFrame({"Cluster": [a, "77"], "Cell type": ["=macrophage", "x"]}).to_csv(
        content, index=False, sep=";"
    )
    file = {"name": "lab.csv", "mimeType": "text/csv", "buffer": content.getvalue().encode()}
    bob.page.set_input_files("dialog input[type=file]", files=[file])
    bob.page.click("dialog button:text-is('import')")
    bob.page.wait_for_selector("#toasts >> text=Not in this study: clusters 77")
    assert bob.groups()[a]["name"] == "=macrophage"


def test_kill_9_after_saved_and_export(opens: Opens, fresh_folder: Path) -> None:
    with serve(fresh_folder) as first:
        tab = opens("killed", at=first)
        a, b = largest(tab)[:2]
        tab.type_name(a, "kept <b>")
        tab.saved()
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        tab.complaints.clear()
        tab.type_name(b, "nobody hears this")
        tab.page.wait_for_selector("#toasts >> text=does not answer")
        tab.page.close()
        tab.complaints.clear()
    with serve(fresh_folder) as second:
        tab = opens("killed", at=second)
        assert tab.groups()[a]["name"] == "kept <b>"
        assert tab.groups()[b]["name"] == ""
        image = next(iter(tab.fetch("/api/study")["images"]))["name"]
        tab.select(a)
        tab.page.fill("input[aria-label='name in these images']", "here only")
        tab.page.keyboard.press("Tab")
        tab.until(lambda: tab.groups()[a]["by_image"] == {image: "here only"})
        tab.page.click("#tables")
        tab.page.click("dialog button:text('write obs')")
        tab.page.wait_for_selector("#toasts >> text=written into")
    obs = anndata.read_h5ad(fresh_folder / "cells.h5ad").obs
    inside = obs["cluster"].astype(str) == a
    here = obs["image"].astype(str) == image
    assert set(obs["phenotype"][inside & here]) <= {"here only"}
    assert set(obs["phenotype"][inside & ~here]) <= {"kept <b>"}
    assert set(obs["phenotype"][~inside]) == {"unnamed"}
