"""Pixel classification projects of ilastik 1.4, run without ilastik.

Axes: C = channels, Y = rows, X = columns, K = classes.

An ``.ilp`` is HDF5. Read are: which features at which scales, and the forests as VIGRA stores them
(topology and parameters of each tree). The file also holds pickled objects; they are never touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.background.filters import (
    FEATURE_KINDS,
    Feature,
    FeatureKind,
    feature_count,
    feature_strips,
)
from maskless.images.background.forest import Forest

WORKFLOW = "Pixel Classification"
VERSIONS = "1.4"
_FORESTS = "PixelClassification/ClassifierForests"
_SPLIT, _LEAF = 0, 1 << 30  # VIGRA's types of nodes: one feature against a threshold; shares
_TRAIN = "Open it in ilastik, press Live Update in the Training applet, and save it"


@dataclass(frozen=True)
class IlastikProject:
    """What is needed to classify pixels.

    Attributes
    ----------
    file
        The ``.ilp``.
    features
        In the order of the forest's columns.
    forest
        All of the project's forests as one: ilastik averages them by their numbers of trees.
    classes
        Names of the labels, in the order of the probabilities.
    channels
        That an image must have.
    """

    file: Path
    features: tuple[Feature, ...]
    forest: Forest
    classes: tuple[str, ...]
    channels: int

    def probabilities(self, image_cyx: NDArray[Any], name: str | None = None) -> NDArray[Any]:
        """Probability of each class at each pixel.

        Parameters
        ----------
        image_cyx
            Shape (channels, rows, columns), any number type: the channels that the project was
            trained on, in its order, unscaled if it saw them unscaled.
        name
            Of the image, for errors.

        Returns
        -------
        probabilities_yxk
            float32, shape (rows, columns, classes), sums to 1.

        Raises
        ------
        InputError
            If the image has another number of channels than the project, or is too small for its
            features.
        """
        if image_cyx.ndim != 3 or len(image_cyx) != self.channels:
            found = f"{len(image_cyx)}" if image_cyx.ndim == 3 else f"shape {image_cyx.shape}"
            raise InputError(
                "this ilastik project was trained on images with another number of channels",
                file=self.file,
                image=name,
                expected=f"{self.channels} channels x rows x columns",
                found=found,
            )
        planes_cyx = np.asarray(image_cyx, dtype=np.float32)
        result_yxk = np.empty((*planes_cyx.shape[1:], self.forest.classes), dtype=np.float32)
        try:
            for rows, features_fyx in feature_strips(planes_cyx, self.features):
                features_fp = features_fyx.reshape(len(features_fyx), -1)
                result_yxk[rows] = self.forest.probabilities(features_fp).reshape(
                    *features_fyx.shape[1:], -1
                )
        except InputError as error:
            raise InputError(f"{error}", file=self.file, image=name) from None
        return result_yxk


def ilastik_probabilities(project: str | Path, image_cyx: NDArray[Any]) -> NDArray[np.float32]:
    """Probability of each class of an ilastik project at each pixel, without ilastik.

    Parameters
    ----------
    project
        Pixel classification project (``.ilp``) of ilastik 1.4, trained and saved.
    image_cyx
        Shape (channels, rows, columns), any number type: the channels that the project was trained
        on, in its order, unscaled if it saw them unscaled.

    Returns
    -------
    p_yxk
        float32, shape (rows, columns, classes), sums to 1; classes in the order of the project's
        labels. What ilastik exports is the same, rounded.

    Raises
    ------
    InputError
        If the file is damaged, of another workflow or version, without trained forests, or was
        trained on another number of channels; if the image is smaller than the features need.

    Notes
    -----
    Features as in :mod:`maskless.images.background.filters`; random forest of VIGRA. ilastik: Berg
    et al. 2019, doi:10.1038/s41592-019-0582-9.
    """
    found: NDArray[np.float32] = read_ilastik_project(project).probabilities(image_cyx)
    return found


def read_ilastik_project(path: str | Path) -> IlastikProject:
    """Read what is needed to classify pixels from an ``.ilp``.

    Raises
    ------
    InputError
        As :func:`ilastik_probabilities`.
    """
    import h5py

    path = Path(path)
    if not path.is_file():
        raise InputError("there is no such ilastik project", file=path)
    try:
        with h5py.File(path, "r") as content:
            return _project(path, content)
    except InputError:
        raise
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise InputError(
            "this ilastik project is damaged or no project at all", file=path, found=error
        ) from None


def _project(path: Path, content: Any) -> IlastikProject:
    workflow, version = (
        _text(content[key][()]) if key in content else "nothing"
        for key in ("workflowName", "ilastikVersion")
    )
    if workflow != WORKFLOW:
        raise InputError(
            "this file is no ilastik project for pixels",
            file=path,
            expected=f"the workflow {WORKFLOW!r}",
            found=workflow,
        )
    if not version.startswith(f"{VERSIONS}."):
        raise InputError(
            "this ilastik project was saved by a version that is not known here",
            file=path,
            expected=f"{VERSIONS}.*",
            found=version,
            do=f"Open it in ilastik {VERSIONS}, train it and save it",
        )
    features = _features(path, content)
    forest, labels = _forests(path, content)
    each = feature_count(features, 1)
    if forest.features % each:
        raise InputError(
            "the forests of this ilastik project do not fit its selection of features",
            file=path,
            expected=f"a multiple of {each} columns",
            found=forest.features,
            do=_TRAIN,
        )
    names = [_text(name) for name in content["PixelClassification/LabelNames"][()]]
    if any(label < 1 or label > len(names) for label in labels):
        raise InputError(
            "the forests of this ilastik project know labels that have no name",
            file=path,
            expected=f"labels 1 to {len(names)}",
            found=labels,
            do=_TRAIN,
        )
    return IlastikProject(
        file=path,
        features=features,
        forest=forest,
        classes=tuple(names[label - 1] for label in labels),
        channels=forest.features // each,
    )


def _features(path: Path, content: Any) -> tuple[Feature, ...]:
    chosen = content.get("FeatureSelections")
    if chosen is None or "SelectionMatrix" not in chosen:
        raise InputError(
            "no features were chosen in this ilastik project", file=path, do="Choose some in it"
        )
    kinds = [_text(name) for name in chosen["FeatureIds"][()]]
    scales = [float(scale) for scale in chosen["Scales"][()]]
    matrix = np.asarray(chosen["SelectionMatrix"][()], dtype=bool)
    if unknown := [kind for kind in kinds if kind not in FEATURE_KINDS]:
        raise InputError(
            "this ilastik project uses a feature that is not known here",
            file=path,
            expected=", ".join(FEATURE_KINDS),
            found=", ".join(unknown),
        )
    if matrix.shape != (len(kinds), len(scales)) or not all(0 < s < 1e3 for s in scales):
        raise InputError("the choice of features in this ilastik project is damaged", file=path)
    features = tuple(
        Feature(cast(FeatureKind, kind), scale)
        for kind, row in zip(kinds, matrix, strict=True)
        for scale, on in zip(scales, row, strict=True)
        if on
    )
    if not features:
        raise InputError(
            "no features were chosen in this ilastik project", file=path, do="Choose some in it"
        )
    return features


def _forests(path: Path, content: Any) -> tuple[Forest, list[int]]:
    """All trees of all forests, and the labels that they tell apart."""
    stored = content.get(_FORESTS)
    names = [] if stored is None else sorted(n for n in stored if n.startswith("Forest"))
    if not names:
        raise InputError("this ilastik project holds no trained forests", file=path, do=_TRAIN)
    groups = [stored[name] for name in names]
    shapes = {
        (
            int(group["_ext_param/column_count_"][0]),
            tuple(int(v) for v in group["_ext_param/labels"][()]),
            bool(group["_options/predict_weighted_"][0]),
        )
        for group in groups
    }
    if len(shapes) != 1:
        raise InputError("the forests of this ilastik project differ in kind", file=path)
    features, labels, weighted = shapes.pop()
    if weighted:
        raise InputError(
            "the forests of this ilastik project weigh their leaves, which is not known here",
            file=path,
        )
    trees = [
        _tree(path, group[name]["topology"][()], group[name]["parameters"][()], features, labels)
        for group in groups
        for name in sorted(n for n in group if n.startswith("Tree_"))
    ]
    if not trees:
        raise InputError("this ilastik project holds no trained forests", file=path, do=_TRAIN)
    roots = np.cumsum([0, *(len(tree[0]) for tree in trees)])[:-1]
    forest = Forest(
        roots=roots.astype(np.int32),
        columns=np.concatenate([tree[0] for tree in trees]),
        thresholds=np.concatenate([tree[1] for tree in trees]),
        children=np.concatenate([tree[2] + r for tree, r in zip(trees, roots, strict=True)]).astype(
            np.int32
        ),
        shares=np.concatenate([tree[3] for tree in trees]),
        features=features,
    )
    return forest, list(labels)


def _tree(
    path: Path,
    topology: NDArray[np.int32],
    parameters: NDArray[np.float64],
    features: int,
    labels: tuple[int, ...],
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Columns, thresholds, children and shares of the nodes of one tree, the root first.

    Topology: number of features, of classes, then nodes of 5 numbers (type, where its parameters
    are, the two children's places, column) or, at leaves, the first 2. Parameters: a weight, then
    the threshold or the shares. A child's place comes after its parent's, which also means that no
    way through the tree is endless.
    """
    classes = len(labels)
    damaged = InputError("a tree of this ilastik project is damaged", file=path, do=_TRAIN)
    if len(topology) < 4 or tuple(topology[:2]) != (features, classes):
        raise damaged
    places, number = [2], {2: 0}
    columns, thresholds, children, shares = [], [], [], []
    for place in places:  # grows while it is walked through
        at = int(topology[place + 1])
        if topology[place] == _LEAF and at >= 0 and at + 1 + classes <= len(parameters):
            columns.append(-1)
            thresholds.append(0.0)
            children.append((0, 0))
            shares.append(parameters[at + 1 : at + 1 + classes])
            continue
        if topology[place] != _SPLIT or place + 5 > len(topology) or at < 0:
            raise damaged
        both = [int(child) for child in topology[place + 2 : place + 4]]
        if not all(place < c < len(topology) - 1 and c not in number for c in both) or (
            both[0] == both[1] or not 0 <= topology[place + 4] < features
        ):
            raise damaged
        for child in both:
            number[child] = len(places)
            places.append(child)
        columns.append(int(topology[place + 4]))
        thresholds.append(float(parameters[at + 1]))
        children.append((number[both[0]], number[both[1]]))
        shares.append(np.zeros(classes))
    leaves = np.array(shares)
    if not np.isfinite(leaves).all() or not np.isfinite(thresholds).all():
        raise damaged
    return (
        np.array(columns, dtype=np.int32),
        np.array(thresholds, dtype=np.float64),
        np.array(children, dtype=np.int32),
        leaves,
    )


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
