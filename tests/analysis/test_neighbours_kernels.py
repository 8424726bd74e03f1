"""The kernels behind the search, beside the same thing written plainly."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskless.analysis.candidates import (
    EMPTY,
    OTHERS,
    empty_pools,
    keep_lowest,
    lowest_keys,
    norms_of,
    numbers_of,
    offer_list,
    offer_products,
    pack,
    settle,
    tighten,
)
from maskless.analysis.integer_vectors import MOVED_UP
from maskless.analysis.neighbour_lists import _Centres, _tour
from maskless.analysis.ranking import insert, rank_exactly


def plain_keys(codes: NDArray[np.int8], queries: NDArray[np.int32]) -> NDArray[np.int64]:
    wide = codes.astype(np.int64)
    distances = (wide**2).sum(1) - 2 * wide[queries] @ wide.T
    return (distances << 32) | np.arange(len(codes))


def offer_lists(
    codes: NDArray[np.int8],
    queries: NDArray[np.int32],
    sizes: list[int],
    order: list[int],
    pool: int,
    skip_self: bool,
) -> NDArray[np.int64]:
    lists = pack(codes, norms_of(codes), np.concatenate([[0], np.cumsum(sizes)]))
    pools = empty_pools(len(codes), pool)
    for turn, c in enumerate(order):
        offer_list(codes, queries, lists, c, pools, 0 if skip_self else OTHERS)
        if turn == 0:
            tighten(pools)
    return lowest_keys(pools)[queries]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 120), min_size=1, max_size=5),
    dimensions=st.sampled_from([32, 64, 96]),
    pool=st.integers(1, 30),
    largest=st.sampled_from([1, 3, 127]),
    skip_self=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_offered_codes_are_the_nearest_whatever_the_order(
    sizes: list[int], dimensions: int, pool: int, largest: int, skip_self: bool, seed: int
) -> None:
    n = sum(sizes)
    rng = np.random.default_rng(seed)
    codes = rng.integers(-largest, largest + 1, (n, dimensions)).astype(np.int8)
    queries = np.flatnonzero(rng.random(n) < 0.5).astype(np.int32)
    keys = plain_keys(codes, queries)
    if skip_self:
        keys[np.arange(len(queries)), queries] = EMPTY
    expected = np.full((len(queries), pool), EMPTY)
    expected[:, : min(n, pool)] = np.sort(keys, axis=1)[:, :pool]
    for order in (list(range(len(sizes))), list(range(len(sizes)))[::-1]):
        found = offer_lists(codes, queries, sizes, order, pool, skip_self)
        np.testing.assert_array_equal(found, expected)


def test_largest_sums_fit() -> None:
    codes = np.full((20, 512), -127, np.int8)
    codes[:10] = 127
    queries = np.arange(20, dtype=np.int32)
    found = offer_lists(codes, queries, [20], [0], 20, False)
    np.testing.assert_array_equal(found, np.sort(plain_keys(codes, queries), axis=1))
    sums = codes.astype(np.int64).sum(axis=1)
    np.testing.assert_array_equal(norms_of(codes), 512 * 127**2 + 2 * MOVED_UP * sums)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 40),
    count=st.integers(1, 60),
    most=st.sampled_from([3, 2**62]),
    seed=st.integers(0, 1000),
)
def test_inserted_keys_are_the_lowest_in_order(size: int, count: int, most: int, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(-most, most, count)
    pool = np.full(size, EMPTY)
    for key in keys:
        if key < pool[-1]:
            insert(pool, key)
    expected = np.sort(np.concatenate([keys, np.full(size, EMPTY)]))[:size]
    np.testing.assert_array_equal(pool, expected)


@settings(max_examples=50, deadline=None)
@given(
    held=st.integers(1, 128),
    least=st.integers(1, 60),
    more=st.integers(0, 20),
    most=st.sampled_from([2**8, 2**60]),
    seed=st.integers(0, 1000),
)
def test_lowest_keys_stay_in_their_order(
    held: int, least: int, more: int, most: int, seed: int
) -> None:
    keys = np.full(128, EMPTY)
    rng = np.random.default_rng(seed)
    keys[:held] = rng.permutation(np.unique(rng.integers(-most, most, 4 * held)))[:held]
    held = int((keys != EMPTY).sum())
    given_keys = keys.copy()
    kept, highest = keep_lowest(keys, held, least, least + more)
    assert min(held, least) <= kept <= least + more
    lowest = np.sort(given_keys)[:kept]
    np.testing.assert_array_equal(keys[:kept], given_keys[np.isin(given_keys, lowest)])
    assert (keys[kept:] == EMPTY).all()
    assert highest == (EMPTY if kept == held else highest)
    assert kept == held or lowest[-1] <= highest < np.sort(given_keys)[kept]


def test_settled_keys_are_the_lowest_and_perhaps_some_more() -> None:
    codes = np.random.default_rng(5).integers(-127, 128, (300, 32)).astype(np.int8)
    numbers = np.arange(300, dtype=np.int32)
    pools = empty_pools(300, 20)
    lists = pack(codes, norms_of(codes), np.array([0, 300]))
    offer_list(codes, numbers, lists, 0, pools, OTHERS)
    expected = lowest_keys(pools)
    settled = np.empty((300, 23), np.int64)
    settle(pools, settled)
    np.testing.assert_array_equal(np.sort(settled, axis=1)[:, :20], expected)
    few = empty_pools(2, 20)
    offer_list(
        codes, numbers[:2], pack(codes[:3], norms_of(codes[:3]), np.array([0, 3])), 0, few, 0
    )
    settle(few, settled[:2])
    np.testing.assert_array_equal((settled[:2] != EMPTY).sum(axis=1), [2, 2])


_OTHER_PROCESSOR = """
import sys
import numpy as np
from maskless.analysis.candidates import (
    empty_pools, lowest_keys, norms_of, offer_list, pack, settle, tighten
)
from maskless.analysis.integer_vectors import BYTES
assert not BYTES
codes = np.load(sys.argv[1])
lists = pack(codes, norms_of(codes), np.array([0, len(codes)]))
pools = empty_pools(len(codes), 9)
numbers = np.arange(len(codes), dtype=np.int32)
offer_list(codes, numbers, lists, 0, pools, 0)
tighten(pools)
keys = np.empty((len(codes), 9), np.int64)
settle(pools, keys)
np.save(sys.argv[2], np.sort(keys, axis=1))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_a_processor_without_products_of_bytes_finds_the_same(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).integers(-127, 128, (170, 64)).astype(np.int8)
    np.save(tmp_path / "codes.npy", codes)
    subprocess.run(
        [
            sys.executable,
            "-c",
            _OTHER_PROCESSOR,
            str(tmp_path / "codes.npy"),
            str(tmp_path / "pools.npy"),
        ],
        env=os.environ
        | {
            "NUMBA_CPU_NAME": "x86-64-v2",
            "NUMBA_CPU_FEATURES": "",
            "NUMBA_CACHE_DIR": str(tmp_path),
        },
        check=True,
    )
    numbers = np.arange(len(codes), dtype=np.int32)
    expected = offer_lists(codes, numbers, [len(codes)], [0], 9, True)
    np.testing.assert_array_equal(np.load(tmp_path / "pools.npy"), expected)


def test_offered_products_are_the_nearest() -> None:
    rng = np.random.default_rng(0)
    points, queries = rng.normal(size=(100, 8)), rng.normal(size=(30, 8))
    pools = empty_pools(30, 9)
    offer_products(
        (queries @ points.T).astype(np.float32),
        ((points**2).sum(1) / 2).astype(np.float32),
        ((queries**2).sum(1) / 2).astype(np.float32),
        500,
        pools,
        OTHERS,
    )
    distances = ((queries[:, None] - points[None]) ** 2).sum(2)
    keys = lowest_keys(pools)
    np.testing.assert_array_equal(numbers_of(keys), 500 + np.argsort(distances, axis=1)[:, :9])
    found = (keys >> 32).astype(np.int32).view(np.float32)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :9] / 2, rtol=1e-4)


def test_candidates_are_ranked_by_exact_distance_then_index() -> None:
    points = np.array([[0], [1], [1], [3], [2], [9]], np.float32)
    order = np.array([5, 4, 3, 2, 1, 0], np.int32)
    keys = np.full((1, 8), EMPTY)
    keys[0, :5] = [4, 1, 3, 2, 0]  # in no order, all at distance 0 by their codes
    indices, distances = np.full((1, 4), -1, np.int32), np.full((1, 4), np.inf, np.float32)
    rank_exactly(points, order, points, order[-1:], keys, 0, 1, indices, distances, True)
    np.testing.assert_array_equal(indices, [[1, 2, 4, 3]])
    np.testing.assert_array_equal(distances, [[1, 1, 2, 3]])
    keys[0, 2:] = EMPTY
    indices[:], distances[:] = -1, np.inf
    rank_exactly(points, order, points, order[-1:], keys, 0, 1, indices, distances, False)
    np.testing.assert_array_equal(indices, [[1, 4, -1, -1]])
    np.testing.assert_array_equal(distances, [[1, 4, np.inf, np.inf]])


@pytest.mark.parametrize("count", [1, 2, 50])
def test_tour_visits_all_and_goes_to_the_nearest(count: int) -> None:
    codes = np.zeros((count, 32), np.int8)
    codes[1:, 0] = 1 + np.random.default_rng(1).permutation(count - 1)
    order = _tour(codes)
    np.testing.assert_array_equal(codes[order, 0], np.arange(count))


def test_nearest_centres_among_some_are_those_among_all() -> None:
    rng = np.random.default_rng(3)
    codes_cd = rng.integers(-60, 60, (200, 32)).astype(np.int8)
    queries_md = codes_cd[:50]
    centres = _Centres(codes_cd)
    nearest = centres.some_nearest(queries_md, 6)
    among = np.unique(nearest[:10])
    assert 2 * len(among) < len(centres)  # a list of its own
    found = centres.some_nearest(queries_md[:10], 6, among)
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(nearest[:10], axis=1))
    np.testing.assert_array_equal(centres.around(1)[:, 0], np.arange(200))
    assert centres.around(500).shape == (200, 200)
