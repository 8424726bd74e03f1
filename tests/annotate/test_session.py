"""A study that is annotated again: names follow re-clustering, columns of images, exports."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from maskless.annotate import asked, writing
from maskless.annotate.image_table import image_columns
from maskless.annotate.session import Session
from maskless.errors import InputError


def named(session: Session, group: str, name: str, who: str = "ann") -> None:
    revision = session.store.history(who).revision
    fields = asked.Fields(name=name)
    writing.set_fields(
        session, asked.SetFields(who=who, revision=revision, groups=[group], fields=fields)
    )


def test_names_are_carried_over_to_a_new_clustering(fresh_folder: Path) -> None:
    session = Session(fresh_folder)
    ids = [name for name in session.cells.clustering.ids if name != "-1"]
    named(session, ids[0], "B cell")
    named(session, ids[1], "T cell", "bob")
    session.close()

    file = fresh_folder / "cells.h5ad"
    cells = anndata.read_h5ad(file)
    turned = {name: str(i + 50) for i, name in enumerate(cells.obs["cluster"].cat.categories)}
    cells.obs["cluster"] = cells.obs["cluster"].cat.rename_categories(turned)
    cells.write_h5ad(file)
    again = Session(fresh_folder)
    assert again.store.state("ann").groups[turned[ids[0]]].name == "B cell"
    assert not again.store.state("ann").groups[turned[ids[0]]].unsure
    assert again.store.state("bob").groups[turned[ids[1]]].name == "T cell"
    assert "carried over" in again.history("ann")[0]["why"]
    revision = again.store.history("ann").revision
    writing.step(again, asked.Step(who="ann", revision=revision, kind="undo"))
    assert again.store.state("ann").groups[turned[ids[0]]].name == ""
    again.close()
    third = Session(fresh_folder)  # carried over once, not at every start
    assert third.store.state("ann").groups[turned[ids[0]]].name == ""
    third.close()


def test_an_export_after_re_clustering_is_refused(fresh_folder: Path) -> None:
    session = Session(fresh_folder)
    named(session, session.cells.clustering.ids[0], "B")
    assert session.export("ann")["phenotypes"] >= 1
    file = fresh_folder / "cells.h5ad"
    cells = anndata.read_h5ad(file)
    assert "B" in set(cells.obs["phenotype"])
    cells.obs["cluster"] = pd.Categorical(["0"] * cells.n_obs)
    cells.write_h5ad(file)
    with pytest.raises(InputError, match="clustered again"):
        session.export("ann")
    session.close()


def test_columns_of_images(study_folder: Path) -> None:
    session = Session(study_folder)
    place = session.cells.clustering
    table = study_folder / "images.csv"
    first, second = place.images
    table.write_text(f"\ufeffImage;patient;same\r\n{second};P2;x\r\n{first};P1;x\r\nother;P3;x\r\n")
    columns = image_columns(study_folder, place)
    assert list(columns) == ["patient"]  # what is the same everywhere tells nothing
    found = np.array(columns["patient"].names)[columns["patient"].codes_n]
    np.testing.assert_array_equal(found, np.where(place.images_n == 0, "P1", "P2"))
    table.write_text(f"image,patient\n{first},P1\n")
    assert image_columns(study_folder, place)["patient"].names == ("P1", "(none)")
    for text, message in (
        ("patient\nP1\n", "no column for the image"),
        (f"image,p\n{first},1\n{first},2\n", "twice"),
        ("image,p\nnowhere,1\n", "no image of the table"),
        ("", "empty"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            image_columns(study_folder, place)
    table.write_bytes(b"image,p\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="UTF-8"):
        image_columns(study_folder, place)
    table.unlink()
    session.close()


def test_a_study_without_pixels_can_still_be_named(fresh_folder: Path) -> None:
    shutil.rmtree(fresh_folder / "images")
    session = Session(fresh_folder)
    told = session.describe()
    assert not any(image["pixels"] for image in told["images"])
    named(session, session.cells.clustering.ids[0], "B")
    session.close()


def test_suggestions_come_with_their_evidence(fresh_folder: Path) -> None:
    session = Session(fresh_folder)
    marker, other = session.cells.markers[:2]
    (fresh_folder / "marker_table.csv").write_text(
        f"type,broad,present,absent\nmine,own,{marker} nothere,{other}\n"
    )
    table = session.table("ann", "group")
    best = [row[0] for row in table["suggestions"] if row]
    assert best
    assert {row["name"] for row in best} == {"mine"}
    assert [e["marker"] for e in best[0]["evidence"]] == [marker, other]
    assert best[0]["missing"] == ["nothere"]
    assert session.store.experts() == []  # nothing is named by itself
    session.close()
