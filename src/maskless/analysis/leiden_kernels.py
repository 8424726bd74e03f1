"""Compiled steps of the Leiden algorithm (:mod:`maskless.analysis.leiden` says what they make).

A graph is the three arrays of a symmetric CSR matrix: `starts`, `columns`, `weights`. Places taken
from arrays are made unsigned before they are used: numba counts negative ones from the end, and
asking whether one is negative takes longer than the rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

GAIN = 1e-9
"""Least gain of a move, as a share of the node's strength: rounding must not make cycles."""


@njit(nogil=True, cache=True)
def strengths_of(starts: NDArray[Any], weights: NDArray[np.float32]) -> Any:
    """Sum the weights at each node."""
    n = len(starts) - 1
    strengths = np.zeros(n, np.float64)
    for i in range(n):
        strength = 0.0
        for e in range(starts[i], starts[i + 1]):
            strength += weights[e]
        strengths[i] = strength
    return strengths


@njit(nogil=True, cache=True)
def partition_modularity(
    starts: Any, columns: Any, weights: Any, labels: Any, resolution: float
) -> Any:
    """Modularity of the partition `labels`, which count from 0."""
    n = len(labels)
    if n == 0:
        return 0.0
    strength_of = np.zeros(labels.max() + 1, np.float64)
    inside: Any = 0.0
    total = 0.0
    for i in range(n):
        strength = 0.0
        own = labels[i]
        for e in range(starts[i], starts[i + 1]):
            strength += weights[e]
            inside += weights[e] if labels[np.uint32(columns[e])] == own else np.float32(0)
        strength_of[own] += strength
        total += strength
    if total == 0:
        return 0.0
    return inside / total - resolution * ((strength_of / total) ** 2).sum()


@njit(nogil=True, cache=True)
def move_nodes(
    starts: Any, columns: Any, weights: Any, strengths: Any, labels: Any, factor: float, order: Any
) -> Any:
    """Move nodes to the community where they gain most until none gains; `labels` change.

    factor = resolution / 2m. Nodes whose surroundings changed wait in a ring of n places.
    """
    n = len(strengths)
    strength_of = np.zeros(n, np.float64)
    size_of = np.zeros(n, np.int32)
    for u in range(n):
        strength_of[labels[u]] += strengths[u]
        size_of[labels[u]] += 1
    empty = np.empty(n + 1, np.int32)
    empties = 0
    for free in range(n - 1, -1, -1):
        if size_of[free] == 0:
            empty[empties] = free
            empties += 1
    queue = order.copy()
    waiting = np.ones(n, np.bool_)
    head, tail, left = 0, 0, n
    links_to = np.zeros(n, np.float64)
    near = np.empty(n + 1, np.int32)
    while left > 0:
        u = queue[head]
        head = head + 1 if head + 1 < n else 0
        left -= 1
        waiting[u] = False
        own = labels[u]
        count = 0
        for e in range(starts[u], starts[u + 1]):
            v = np.uint32(columns[e])
            c = np.uint32(labels[v])
            near[count] = c  # counts only if new: no branch, which could not be foreseen
            count += (v != u) & (links_to[c] == 0.0)
            links_to[c] += weights[e] if v != u else np.float32(0)
        strength = strengths[u]
        strength_of[own] -= strength
        least = GAIN * strength
        best = own
        best_gain = links_to[own] - factor * strength * strength_of[own]
        for t in range(count):
            c = np.uint32(near[t])
            gain = links_to[c] - factor * strength * strength_of[c]
            links_to[c] = 0.0
            better = gain > best_gain + least
            best_gain = gain if better else best_gain
            best = np.int32(c) if better else best
        if best_gain < -least and size_of[own] > 1:  # better alone
            empties -= 1
            best = empty[empties]
        strength_of[best] += strength
        if best == own:
            continue
        labels[u] = best
        size_of[own] -= 1
        size_of[best] += 1
        if size_of[own] == 0:
            strength_of[own] = 0.0
            empty[empties] = own
            empties += 1
        for e in range(starts[u], starts[u + 1]):
            v = np.uint32(columns[e])
            queue[tail] = v  # stays only if it counts, as above
            joins = (not waiting[v]) & (labels[v] != best)
            waiting[v] |= joins
            tail += joins
            tail = tail if tail < n else 0
            left += joins


@njit(nogil=True, cache=True)
def refined_parts(
    starts: Any, columns: Any, weights: Any, strengths: Any, labels: Any, factor: float, order: Any
) -> Any:
    """Merge nodes of each community into connected parts; only nodes still alone move."""
    n = len(strengths)
    parts = np.arange(n).astype(np.int32)
    strength_of = strengths.copy()
    community_strength = np.zeros(n, np.float64)
    outward = np.zeros(n, np.float64)  # weight from a part to the rest of its community
    size_of = np.ones(n, np.int32)
    for u in range(n):
        own = labels[u]
        community_strength[own] += strengths[u]
        links: Any = 0.0
        for e in range(starts[u], starts[u + 1]):
            v = np.uint32(columns[e])
            links += weights[e] if (v != u) & (labels[v] == own) else np.float32(0)
        outward[u] = links
    links_to = np.zeros(n, np.float64)
    near = np.empty(n + 1, np.int32)
    for u in order:
        own = parts[u]
        label = labels[u]
        strength = strengths[u]
        whole = community_strength[label]
        if size_of[own] != 1 or outward[own] < factor * strength * (whole - strength):
            continue
        count = 0
        for e in range(starts[u], starts[u + 1]):
            v = np.uint32(columns[e])
            inside = (v != u) & (labels[v] == label)
            c = np.uint32(parts[v])
            near[count] = c
            count += inside & (links_to[c] == 0.0)
            links_to[c] += weights[e] if inside else np.float32(0)
        best = own
        best_gain = GAIN * strength
        best_links = 0.0
        for t in range(count):
            c = np.uint32(near[t])
            links = links_to[c]
            links_to[c] = 0.0
            if outward[c] >= factor * strength_of[c] * (whole - strength_of[c]):
                gain = links - factor * strength * strength_of[c]
                if gain > best_gain:
                    best_gain = gain
                    best = c
                    best_links = links
        if best != own:
            parts[u] = best
            strength_of[best] += strength
            size_of[best] += 1
            size_of[own] = 0
            outward[best] += outward[own] - 2 * best_links
    return parts


@njit(nogil=True, cache=True)
def connected_parts(starts: Any, columns: Any, labels: Any) -> Any:
    """Give the connected components of every community."""
    n = len(labels)
    parts = np.full(n, -1, np.int32)
    stack = np.empty(n, np.int32)
    for u in range(n):
        if parts[u] >= 0:
            continue
        parts[u] = u
        stack[0] = u
        depth = 1
        while depth > 0:
            depth -= 1
            w = stack[depth]
            for e in range(starts[w], starts[w + 1]):
                v = columns[e]
                if parts[v] < 0 and labels[v] == labels[u]:
                    parts[v] = u
                    stack[depth] = v
                    depth += 1
    return parts


@njit(nogil=True, cache=True)
def renumber(labels: Any) -> Any:
    """Number labels 0.. in the order of their first members; also give how many there are."""
    n = len(labels)
    number_of = np.full(n, -1, np.int32)
    numbers = np.empty(n, np.int32)
    count = 0
    for i in range(n):
        if number_of[labels[i]] < 0:
            number_of[labels[i]] = count
            count += 1
        numbers[i] = number_of[labels[i]]
    return numbers, count


@njit(nogil=True, cache=True)
def merge_nodes(starts: Any, columns: Any, weights: Any, parts: Any, count: int) -> Any:
    """Make each part one node; edges inside a part become its loop."""
    n = len(parts)
    bounds = np.zeros(count + 1, np.int64)
    for i in range(n):
        bounds[parts[i] + 1] += 1
    for a in range(count):
        bounds[a + 1] += bounds[a]
    place = bounds[:-1].copy()
    members = np.empty(n, np.int32)
    for i in range(n):
        members[place[parts[i]]] = i
        place[parts[i]] += 1
    new_columns = np.empty(len(columns) + 1, np.int32)
    new_weights = np.empty(len(columns), np.float32)
    new_starts = np.zeros(count + 1, starts.dtype)
    sums = np.zeros(count, np.float64)
    seen_by = np.full(count, -1, np.int32)
    end = 0
    for a in range(count):
        begin = end
        for t in range(bounds[a], bounds[a + 1]):
            u = np.uint32(members[t])
            for e in range(starts[u], starts[u + 1]):
                b = np.uint32(parts[np.uint32(columns[e])])
                new_columns[end] = b
                end += seen_by[b] != a
                seen_by[b] = a
                sums[b] += weights[e]
        for t in range(begin, end):
            b = np.uint32(new_columns[t])
            new_weights[t] = sums[b]
            sums[b] = 0.0
        new_starts[a + 1] = end
    return new_starts, new_columns[:end].copy(), new_weights[:end].copy()
