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
    empty_pools,
    insert,
    numbers_of,
    offer_codes,
    offer_neighbours_of_neighbours,
    offer_products,
    pack,
    squared_norms,
)
from maskless.analysis.neighbour_lists import _tour


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
    starts = np.concatenate([[0], np.cumsum(sizes)])
    blocks = np.concatenate([[0], np.cumsum(-(-np.array(sizes) // 16))])
    packed, norms = pack(codes, starts, blocks)
    pools = empty_pools(len(codes), pool)
    for c in order:
        first, stop = blocks[c], blocks[c + 1]
        offer_codes(codes, queries, packed, norms, first, stop, starts[c], pools, skip_self)
    return pools[queries]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
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
    assert (squared_norms(codes) == 512 * 127**2).all()


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 40),
    count=st.integers(1, 60),
    most=st.sampled_from([3, 2**62]),
    seed=st.integers(0, 1000),
)
def test_inserted_keys_are_the_lowest_in_order(size: int, count: int, most: int, seed: int) -> None:
    keys = np.random.default_rng(seed).integers(-most, most, count)
    pool = empty_pools(1, size)[0]
    for key in keys:
        if key < pool[-1]:
            insert(pool, key)
    expected = np.sort(np.concatenate([keys, np.full(size, EMPTY)]))[:size]
    np.testing.assert_array_equal(pool, expected)


_OTHER_PROCESSOR = """
import sys
import numpy as np
from maskless.analysis.candidates import empty_pools, offer_codes, pack
from maskless.analysis.integer_vectors import BYTES
assert not BYTES
codes = np.load(sys.argv[1])
ends = np.array([0, len(codes)])
packed, norms = pack(codes, ends, -(-ends // 16))
pools = empty_pools(len(codes), 9)
numbers = np.arange(len(codes), dtype=np.int32)
offer_codes(codes, numbers, packed, norms, 0, -(-len(codes) // 16), 0, pools, True)
np.save(sys.argv[2], pools)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_a_processor_without_products_of_bytes_finds_the_same(tmp_path: Path) -> None:
    codes = np.random.default_rng(3).integers(-127, 128, (70, 64)).astype(np.int8)
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
        np.arange(30, dtype=np.int32),
        pools,
        False,
    )
    distances = ((queries[:, None] - points[None]) ** 2).sum(2)
    np.testing.assert_array_equal(numbers_of(pools), 500 + np.argsort(distances, axis=1)[:, :9])
    found = (pools >> 32).astype(np.int32).view(np.float32)
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :9] / 2, rtol=1e-4)


def test_neighbours_of_neighbours_are_offered() -> None:
    codes = np.zeros((6, 32), np.int8)
    codes[:, 0] = [0, 1, 2, 3, 4, 5]
    before = np.array([[2], [2], [4], [4], [5], [4]], np.int32)
    pools = empty_pools(6, 3)
    offer_neighbours_of_neighbours(codes, squared_norms(codes), before, pools, 0, 6)
    np.testing.assert_array_equal(numbers_of(pools)[:, 0], [4, 4, 5, 5, -1, -1])
    assert (numbers_of(pools)[:, 1] == -1).all()


@pytest.mark.parametrize("count", [1, 2, 50])
def test_tour_visits_all_and_goes_to_the_nearest(count: int) -> None:
    codes = np.zeros((count, 32), np.int8)
    codes[1:, 0] = 1 + np.random.default_rng(1).permutation(count - 1)
    order = _tour(codes)
    np.testing.assert_array_equal(codes[order, 0], np.arange(count))
