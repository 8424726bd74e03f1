"""CSV in and out, agreement of experts, and obs["phenotype"]."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from annotate.helpers import clustering
from maskless.annotate.agreement import agreement, conflicts, differences
from maskless.annotate.export import write_phenotypes
from maskless.annotate.labels import Change, Labels
from maskless.annotate.spreadsheet import from_csv, to_csv
from maskless.errors import InputError

BASE = clustering()
texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.text(st.sampled_from("\r\n\t\0 \"',;=+-@'x"), max_size=12),
)


def labels_with(**fields: object) -> Labels:
    labels = Labels(BASE.ids, BASE.codes_n)
    labels.apply(Change({"1": fields}))
    return labels


@given(texts, texts, texts, st.booleans(), texts)
def test_any_text_comes_back_exactly(
    name: str, broad: str, notes: str, unsure: bool, here: str
) -> None:
    by_image = {"a": here} if here else {}
    given_labels = labels_with(
        name=name, broad=broad, notes=notes, unsure=unsure, by_image=by_image
    )
    fresh = Labels(BASE.ids, BASE.codes_n)
    fields, unknown = from_csv(to_csv(given_labels), fresh)
    fresh.apply(Change(fields))
    assert unknown == []
    assert fresh.same_as(given_labels)


def test_long_names_come_back_exactly() -> None:
    given_labels = labels_with(name="\r" * 10_000, notes="n" * 200_000)
    fields, _ = from_csv(to_csv(given_labels), Labels(BASE.ids, BASE.codes_n))
    assert fields == {"1": {"name": "\r" * 10_000, "notes": "n" * 200_000}}


def test_names_of_single_images_are_emptied_or_kept_as_the_table_says() -> None:
    labels = labels_with(by_image={"a": "x", "b": "y"})
    table = "cluster,name,name in a\n1,,\n"
    assert from_csv(table, labels)[0] == {"1": {"by_image": {"b": "y"}}}


@pytest.mark.parametrize("name", ["=1+1", "+x", "-x", "@x", "'=x", "\t=x"])
def test_no_formula_reaches_a_spreadsheet(name: str) -> None:
    rows = list(csv.reader(io.StringIO(to_csv(labels_with(name=name)), newline="")))
    assert rows[2][2] == f"'{name}"


@pytest.mark.parametrize(
    "text",
    [
        "cluster,phenotype\n1,B cell\n",
        "\ufeffCluster;Cell type\r\n1;B cell\r\n",
        "ID\tlabel\n1.0\tB cell\n",
        "rank,phenograph,annotation\nx,1,B cell\n",
    ],
)
def test_tables_as_people_save_them(text: str) -> None:
    fields, unknown = from_csv(text, Labels(BASE.ids, BASE.codes_n))
    assert fields == {"1": {"name": "B cell"}}
    assert unknown == []


def test_clusters_that_are_not_there_are_told() -> None:
    fields, unknown = from_csv("cluster,name\n1,B\n77,C\n", Labels(BASE.ids, BASE.codes_n))
    assert (list(fields), unknown) == (["1"], ["77"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("a,b\n1,2\n", "no column for the cluster"),
        ("cluster,b\n1,2\n", "no column for the name"),
        ("cluster,name\n1,B\n1,C\n", "twice"),
        ("cluster,name\n77,B\n", "no cluster of the table"),
    ],
)
def test_tables_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_csv(text, Labels(BASE.ids, BASE.codes_n))


@given(st.integers(0, 50), st.integers(1, 4), st.integers(1, 4))
def test_kappa_is_cohens(seed: int, first: int, second: int) -> None:
    rng = np.random.default_rng(seed)
    names = ["T", "B", "NK", "other"]
    a, b = rng.integers(0, first, 60), rng.integers(0, second, 60)
    found = agreement((a.astype(np.int32), names[:first]), (b.astype(np.int32), names[:second]))
    assert found.share == pytest.approx((a == b).mean())
    assert found.table_ab.sum() == 60
    if len(set(a) | set(b)) > 1:
        assert found.kappa == pytest.approx(cohen_kappa_score(a, b))
    else:
        assert np.isnan(found.kappa)


def test_conflicts_and_differences() -> None:
    ann, bob = labels_with(name="B"), labels_with(name="T", notes="hm")
    bob.apply(Change({"2": {"name": "NK"}}))
    assert conflicts([("ann", ann), ("bob", bob)]) == {"1": {"ann": "B", "bob": "T"}}
    found = {row["id"]: row["fields"] for row in differences(ann, bob)}
    assert found == {
        "1": {"name": ["B", "T"], "notes": ["", "hm"]},
        "2": {"name": ["", "NK"]},
    }


def test_phenotypes_in_the_file_and_nothing_else_changed(tmp_path: Path) -> None:
    file = tmp_path / "cells.h5ad"
    cells = anndata.AnnData(
        np.arange(8, dtype=np.float32).reshape(4, 2),
        obs=pd.DataFrame(
            {
                "cluster": pd.Categorical(["0", "0", "1", "1"]),
                "phenotype": pd.Categorical(["unnamed"] * 4),
            },
            index=list("abcd"),
        ),
    )
    cells.uns["maskless"] = {"stages": {"cluster": "f"}}
    cells.write_h5ad(file)
    names = ["<T>", "=B", "日本"]
    codes = np.array([0, 1, 2, 0], np.int32)
    write_phenotypes(file, codes, names, (codes, ["x", "y", "z"]))
    again = anndata.read_h5ad(file)
    assert list(again.obs["phenotype"]) == ["<T>", "=B", "日本", "<T>"]
    assert list(again.obs["phenotype_broad"]) == ["x", "y", "z", "x"]
    assert list(again.obs["cluster"]) == list(cells.obs["cluster"])
    assert np.array_equal(again.X, cells.X)
    assert again.uns["maskless"]["stages"]["cluster"] == "f"
    write_phenotypes(file, codes, names)
    assert list(anndata.read_h5ad(file).obs) == ["cluster", "phenotype"]
    before = file.read_bytes()
    with pytest.raises(InputError, match="not the cells"):
        write_phenotypes(file, codes[:3], names)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]
