"""A pixel classifier a marker, trained from sparse brush labels.

Axes: C = channels, F = features, P = labelled pixels, Y = rows, X = columns.

Labels are images of whole numbers: 0 = not labelled, 1 = background, 2 = signal, as napari saves
a labels layer. Each marker has a forest of its own that sees this marker alone, by the filters of
:mod:`maskless.images.background.filters`. Forests are trained anew from the labels each time, and
come out the same each time; nothing is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.background.files import named_file
from maskless.images.background.filters import FEATURE_KINDS, Feature, feature_strips
from maskless.images.background.forest import Forest, forest_of
from maskless.images.counts import counts_of
from maskless.images.image import Image, ImageSet
from maskless.progress import log

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

SCALES_UM = (0.7, 1.0, 1.6, 3.5)
BACKGROUND, SIGNAL = 1, 2

_LEAST_SCALE_PX = 0.7  # finer filters see single pixels only
_TREES = 60
_LEAST_LEAF = 3
_MOST_LEAVES = 64  # of a tree: more learn the strokes by heart, and cost time
_MOST_PIXELS = 20_000  # that are learnt from, of one image and marker


@dataclass(frozen=True)
class ClassifierSignal:
    """Probability of signal by the forests of the markers."""

    forests: dict[str, Forest]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32], markers: Sequence[str]
    ) -> Iterator[NDArray[np.float32]]:
        """Probability of signal of each of the markers in turn, shape (Y, X)."""
        for marker in markers:
            signal_yx = np.empty(counts_cyx.shape[1:], dtype=np.float32)
            for rows, features_fyx in marker_features(image, counts_cyx, marker):
                features_fp = features_fyx.reshape(len(features_fyx), -1)
                found_pk = self.forests[marker].probabilities(features_fp)
                signal_yx[rows] = found_pk[:, 1].reshape(features_fyx.shape[1:])
            yield signal_yx


def marker_features(
    image: Image, counts_cyx: NDArray[np.float32], marker: str
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """What the forest of a marker sees, some rows at a time; see :func:`feature_strips`."""
    plane_yx = counts_cyx[image.channels.index(marker)]
    even_yx = 2 * np.sqrt(plane_yx + np.float32(0.375))  # noise alike in dim and bright places
    scales = [max(_LEAST_SCALE_PX, um / image.um_per_pixel) for um in SCALES_UM]
    features = [Feature(kind, scale) for kind in FEATURE_KINDS for scale in scales]
    try:
        yield from feature_strips(even_yx[None], features)
    except InputError as error:
        raise InputError(f"{error}", image=image.name, channel=marker) from None


def train_classifiers(
    images: ImageSet,
    settings: CleanSettings,
    before: Sequence[Correction],
    markers: Sequence[str],
    folder: Path,
    seed: int,
) -> ClassifierSignal:
    """Train a forest for each marker from the labels that are there.

    Parameters
    ----------
    images
        Raw.
    settings
        ``background_files`` names the labels of an image, or of an image and a marker; not every
        image needs some.
    before
        Corrections that come before.
    markers
        Which.
    folder
        That relative paths start from.
    seed
        Of the trees, and of the pixels where there are very many.

    Raises
    ------
    InputError
        If there are no labels, a marker has not both kinds, or a file is no label image of its
        image's size.
    """
    pattern = str(settings.background_files)
    known: dict[str, list[tuple[NDArray[np.float32], NDArray[np.uint8]]]] = {m: [] for m in markers}
    for name in images.names:
        files = {m: named_file(pattern, folder, name, m) for m in markers}
        if not any(file.is_file() for file in files.values()):
            continue
        image = images[name]
        counts_cyx, _ = counts_of(image, settings, before)
        read: dict[Path, NDArray[np.uint8]] = {}
        for marker, file in files.items():
            if not file.is_file():
                continue
            if file not in read:
                read[file] = read_labels(file, counts_cyx.shape[1:], name)
            chosen_yx = _chosen(read[file], seed, name, marker)
            features_fp = np.concatenate(
                [
                    strip[:, chosen_yx[rows] > 0]
                    for rows, strip in marker_features(image, counts_cyx, marker)
                ],
                axis=1,
            )
            known[marker].append((features_fp, chosen_yx[chosen_yx > 0]))
    return ClassifierSignal(
        {m: _train(known[m], m, seed, named_file(pattern, folder, "{image}", m)) for m in markers}
    )


def _train(
    known: list[tuple[NDArray[np.float32], NDArray[np.uint8]]], marker: str, seed: int, file: Path
) -> Forest:
    from sklearn.ensemble import RandomForestClassifier

    labels = np.concatenate([np.zeros(0, np.uint8), *(found for _, found in known)])
    kinds = [int(np.count_nonzero(labels == kind)) for kind in (BACKGROUND, SIGNAL)]
    if not all(kinds):
        raise InputError(
            "a classifier of background needs labels of both kinds",
            file=file,
            channel=marker,
            expected="pixels labelled 1 (background) and 2 (signal)",
            found=f"{kinds[0]} and {kinds[1]} of them in {len(known)} images",
            do="Label more, or leave the marker out of clean.background_markers",
        )
    log(f"background of {marker}: learnt from {kinds[0]} + {kinds[1]} pixels, {len(known)} images")
    forest = RandomForestClassifier(
        _TREES,
        min_samples_leaf=_LEAST_LEAF,
        max_leaf_nodes=_MOST_LEAVES,
        class_weight="balanced",
        random_state=np.random.RandomState(_digest(seed, marker) % 2**32),
    )
    return forest_of(forest.fit(np.concatenate([f for f, _ in known], axis=1).T, labels))


def read_labels(file: Path, shape_yx: tuple[int, ...], image: str) -> NDArray[np.uint8]:
    """Read a label image.

    Returns
    -------
    labels_yx
        0 = not labelled, 1 = background, 2 = signal.

    Raises
    ------
    InputError
        If it is unreadable, not of the image's size, or holds other numbers.
    """
    import tifffile

    from maskless.images.header import guarded

    with guarded(file, "this label image is unreadable", image):
        labels_yx = np.squeeze(tifffile.imread(file))
    if labels_yx.shape != tuple(shape_yx) or labels_yx.dtype.kind not in "uib":
        raise InputError(
            "this is no label image of its image",
            file=file,
            image=image,
            expected=f"{shape_yx[0]} rows x {shape_yx[1]} columns of whole numbers",
            found=f"shape {labels_yx.shape}, type {labels_yx.dtype}",
        )
    if strange := sorted(set(np.unique(labels_yx).tolist()) - {0, BACKGROUND, SIGNAL}):
        raise InputError(
            "a label image holds a number that means nothing",
            file=file,
            image=image,
            expected="0 (not labelled), 1 (background), 2 (signal)",
            found=strange[0],
        )
    return labels_yx.astype(np.uint8)


def _chosen(labels_yx: NDArray[np.uint8], seed: int, *names: str) -> NDArray[np.uint8]:
    """The labels, thinned out where there are more than are worth their time."""
    places = np.flatnonzero(labels_yx)
    if len(places) <= _MOST_PIXELS:
        return labels_yx
    generator = np.random.default_rng(_digest(seed, *names))
    kept = generator.choice(places, size=_MOST_PIXELS, replace=False)
    chosen = np.zeros(labels_yx.size, dtype=np.uint8)
    chosen[kept] = labels_yx.ravel()[kept]
    return chosen.reshape(labels_yx.shape)


def _digest(seed: int, *names: str) -> int:
    text = "\0".join((str(seed), *names))
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "little")
