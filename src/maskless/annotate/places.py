"""Which cells a clustering is of, and how names find them again after re-clustering.

n = cells. Cells are known by image and place, so names also survive a new detection: a cell is
taken for the nearest old one of its image within 4 pixels.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.labels import UNNAMED, Change, Group, Labels

_SURE, _LIKELY = 0.8, 0.5
_NEAR_PX = 4.0


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of cells at known places.

    Attributes
    ----------
    ids
        Names of the clusters.
    codes_n
        For each cell the position of its cluster in `ids`, int32.
    images, images_n
        Names of the images, and for each cell the position of its image.
    yx_n2
        Centres in pixels, float32.
    """

    ids: tuple[str, ...]
    codes_n: NDArray[np.int32]
    images: tuple[str, ...]
    images_n: NDArray[np.int32]
    yx_n2: NDArray[np.float32]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of clusters and cells."""
        digest = hashlib.sha256(json.dumps([self.ids, self.images]).encode())
        for array in self._arrays():
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def packed(self) -> bytes:
        """Cells as bytes, for the store."""
        return zlib.compress(b"".join(array.tobytes() for array in self._arrays()), 1)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return (
            self.codes_n.astype("<i4"),
            self.images_n.astype("<i4"),
            self.yx_n2.astype("<f4"),
        )

    @classmethod
    def unpacked(cls, ids: Sequence[str], images: Sequence[str], cells: bytes) -> Clustering:
        """The opposite of `packed`."""
        content = zlib.decompress(cells)
        n = len(content) // 16
        return cls(
            tuple(ids),
            np.frombuffer(content, "<i4", n),
            tuple(images),
            np.frombuffer(content, "<i4", n, 4 * n),
            np.frombuffer(content, "<f4", 2 * n, 8 * n).reshape(n, 2),
        )


def matching_rows(old: Clustering, new: Clustering) -> NDArray[np.int64]:
    """For each new cell the old cell at its place, -1 where there is none; shape (n new,)."""
    from scipy.spatial import cKDTree

    if (
        old.images == new.images
        and np.array_equal(old.images_n, new.images_n)
        and np.array_equal(old.yx_n2, new.yx_n2)
    ):
        return np.arange(len(new.codes_n))
    found = np.full(len(new.codes_n), -1, np.int64)
    for number, image in enumerate(new.images):
        if image not in old.images:
            continue
        there = np.flatnonzero(old.images_n == old.images.index(image))
        here = np.flatnonzero(new.images_n == number)
        if len(there) and len(here):
            tree = cKDTree(old.yx_n2[there])
            distance, nearest = tree.query(new.yx_n2[here], distance_upper_bound=_NEAR_PX)
            good = np.isfinite(distance)
            found[here[good]] = there[nearest[good]]
    return found


def carried_over(old: Clustering, labels: Labels, new: Clustering) -> Change:
    """Names for new clusters from an expert's names for old ones, by the share of common cells.

    Parameters
    ----------
    old, labels
        The clustering that has names, and their state.
    new
        The clustering that needs them.

    Returns
    -------
    Change
        From 80 % of a cluster's cells under one name, the name is taken; from 50 % it is taken and
        marked unsure; below, the cluster stays unnamed, marked unsure, with what was found in its
        notes. Clusters without any named cell are left alone.
    """
    rows = matching_rows(old, new)
    codes_n, names = labels.phenotypes(old.images_n, old.images)
    size = len(names) + 1
    carried = np.where(rows >= 0, codes_n[rows], len(names)) if len(codes_n) else rows * 0
    table = np.bincount(new.codes_n * size + carried, minlength=len(new.ids) * size)
    fields: dict[str, dict[str, Any]] = {}
    sources = {group.name: group for group in labels.groups.values() if group.name}
    for cluster, counts in zip(new.ids, table.reshape(-1, size), strict=True):
        total = int(counts.sum())
        found = [(int(counts[i]), name) for i, name in enumerate(names) if name != UNNAMED]
        found = sorted((f for f in found if f[0]), key=lambda f: (-f[0], f[1]))
        if not found:
            continue
        share, name = found[0][0] / total, found[0][1]
        told = ", ".join(f"{n} {c / total:.0%}" for c, n in found[:4])
        if share >= _LIKELY:
            source = sources.get(name, Group(name=name))
            fields[cluster] = {
                "name": name,
                "broad": source.broad,
                "color": source.color,
                "notes": source.notes,
                "unsure": source.unsure,
            }
        if share < _SURE:
            note = f"Carried over from an earlier clustering: {told}."
            before = fields.get(cluster, {}).get("notes", "")
            fields.setdefault(cluster, {})
            fields[cluster] |= {"unsure": True, "notes": f"{before}\n{note}".strip()}
    return Change(fields)
