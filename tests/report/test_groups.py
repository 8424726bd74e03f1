from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskless.errors import InputError, SettingsError
from maskless.report.groups import (
    describe_groups,
    group_means,
    groups_of,
    marker_values,
    scale_means,
    telling_markers,
)


def test_clusters_are_ordered_by_number_and_unknown_comes_last(made):
    groups = groups_of(made[0], "cluster")
    assert groups.names == (*map(str, range(12)), "-1")
    assert groups.labels[-1] == "unknown"
    assert groups.counts_g.sum() == made[0].n_obs
    assert groups.unknown_g.tolist() == [False] * 12 + [True]


def test_colours_belong_to_cluster_numbers_whatever_clusters_are_there(made):
    cells = made[0]
    every = groups_of(cells, "cluster")
    some = groups_of(cells[cells.obs["cluster"].isin(["3", "7", "-1"])], "cluster")
    of_every = dict(zip(every.names, every.colors, strict=True))
    assert {n: of_every[n] for n in some.names} == dict(zip(some.names, some.colors, strict=True))
    assert len(set(every.colors)) == 13


def test_cells_without_a_value_form_a_last_unknown_group():
    obs = pd.DataFrame({"kind": pd.Categorical(["b", None, "a"], categories=["b", "a", "c"])})
    obs.index = obs.index.astype(str)
    groups = groups_of(anndata.AnnData(X=np.zeros((3, 1)), obs=obs), "kind")
    assert groups.names == ("b", "a", "(none)")
    assert groups.codes_n.tolist() == [0, 2, 1]
    assert groups.unknown_g.tolist() == [False, False, True]


def test_means_are_those_of_a_slow_loop_and_leave_nan_out(made):
    values, _ = marker_values(made[0])
    values[5, 3] = np.nan
    groups = groups_of(made[0], "cluster")
    means = group_means(values, groups)
    slow = [np.nanmean(values[groups.codes_n == g], axis=0) for g in range(len(groups.names))]
    np.testing.assert_allclose(means, slow)


@given(arrays(np.float64, (5, 4), elements=st.floats(-1e3, 1e3)))
def test_scales_do_what_they_say(means):
    known = np.array([True, True, True, True, False])
    z = scale_means(means, known, "z")
    assert np.abs(z[known].mean(axis=0)).max() < 1e-6
    spread = z[known].std(axis=0)
    assert np.all(np.isclose(spread, 1) | (spread == 0))
    unit = scale_means(means, known, "0-1")
    assert unit.min() >= 0
    assert unit.max() <= 1
    assert scale_means(means, known, "raw") is means


def test_scale_must_be_known():
    with pytest.raises(SettingsError, match="log"):
        scale_means(np.zeros((2, 2)), np.array([True, True]), "log")  # type: ignore[arg-type]


def test_words_name_the_planted_marker(made):
    words = describe_groups(made[0])
    for cluster in range(12):
        assert words[str(cluster)].startswith(f"M{cluster} very high")


def test_words_of_one_group_and_of_equal_groups(make):
    one, _ = make(n_clusters=1, unknown=False)
    assert describe_groups(one) == {"0": "the only group: nothing to compare with"}
    two, _ = make(n_clusters=2, unknown=False)
    two.X[:] = 1
    assert set(describe_groups(two).values()) == {"no marker stands out"}


def test_telling_markers_part_clusters_and_end_with_a_nuclear_one(make):
    cells, _ = make(n_clusters=4)
    chosen = telling_markers(cells)
    assert chosen[-1] == "DNA"
    assert set(chosen[:4]) == {"M0", "M1", "M2", "M3"}
    assert len(chosen) == 6
    assert "Empty" not in chosen


def test_no_used_marker_and_unknown_columns_are_told(made):
    cells = made[0].copy()
    with pytest.raises(InputError, match=r"'nobody'.*cluster"):
        groups_of(cells, "nobody")
    with pytest.raises(InputError, match="no layer 'nothing'"):
        marker_values(cells, "nothing")
    cells.var["used"] = False
    with pytest.raises(InputError, match="no marker is used"):
        marker_values(cells)
