"""The names that people gave to a study's cells: labels.sqlite, or what was exported from it."""

from __future__ import annotations

import sqlite3
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.study import fingerprint, listing

if TYPE_CHECKING:
    from maskless.annotate.labels import Labels
    from maskless.annotate.places import Clustering
    from maskless.study import Study

LABELS = "labels.sqlite"
_UNNAMED = "unnamed"


@dataclass(frozen=True, eq=False)
class Names:
    """A name for each cell of a study.

    Attributes
    ----------
    codes_n, names
        For each cell the position of its name, int32; "unnamed" where nobody gave one.
    told
        Where they come from, in words.
    """

    codes_n: NDArray[np.int32]
    names: tuple[str, ...]
    told: str

    @property
    def given(self) -> bool:
        """Whether anybody gave a name."""
        return any(name != _UNNAMED for name in self.names)

    @property
    def fingerprint(self) -> str:
        """Of the names and who carries them, however they are stored."""
        return fingerprint("names", list(self.names), _digest(self.codes_n))


def names_of(study: Study, expert: str | None = None) -> Names:
    """Find the names of a study's cells.

    Those in labels.sqlite count, as they are now, if one person gave names to these clusters. Where
    several did, those that were exported into ``obs["phenotype"]`` count, or those of `expert`.

    Parameters
    ----------
    study
        With clusters.
    expert
        Whose names are wanted; None = as above.

    Raises
    ------
    InputError
        If `expert` gave none, or several people did and nothing says whose to take.
    StudyError
        If labels.sqlite cannot be read.
    """
    files = [study.cells_file, *(study.folder / f"{LABELS}{end}" for end in ("", "-wal"))]
    state = tuple(map(tuple, listing([path for path in files if path.exists()])))
    return _names(study.cells_file, study.folder / LABELS, expert, state)


@lru_cache(maxsize=4)
def _names(cells_file: Path, labels_file: Path, expert: str | None, state: object) -> Names:
    clustering, exported = _cells(cells_file)
    everyone = _experts(labels_file, clustering) if labels_file.exists() else {}
    if expert is not None and expert not in everyone:
        raise InputError(
            f"{expert!r} has given no names to these clusters",
            file=labels_file,
            expected=f"one of {', '.join(everyone)}" if everyone else None,
            found=None if everyone else "no names of anybody",
        )
    if expert is None and len(everyone) == 1:
        expert = next(iter(everyone))
    if expert is not None:
        codes, names = everyone[expert].phenotypes(clustering.images_n, clustering.images)
        return Names(codes, tuple(names), f"named by {expert}")
    if everyone and not exported.given:
        raise InputError(
            "several people have named these clusters",
            file=labels_file,
            found=", ".join(everyone),
            do="Say whose names to take with --expert, or export them on the page",
        )
    return exported


def _cells(file: Path) -> tuple[Clustering, Names]:
    """Clusters and exported names, without reading more of the file."""
    import h5py
    from anndata.io import read_elem

    from maskless.annotate.places import Clustering

    try:
        with h5py.File(file, "r") as content:
            obs = content["obs"]
            cluster, image, phenotype = (
                read_elem(obs[name]) for name in ("cluster", "image", "phenotype")
            )
            yx = np.column_stack([obs["y"][:], obs["x"][:]]).astype(np.float32)
    except (OSError, KeyError) as error:
        raise InputError(
            "the cells have no clusters yet", file=file, do="Run: maskless run STUDY"
        ) from error
    (ids, cluster_n), (images, image_n) = (_column(values) for values in (cluster, image))
    names = tuple(map(str, phenotype.categories))
    exported = Names(np.asarray(phenotype.codes, np.int32), names, 'obs["phenotype"]')
    return Clustering(ids, cluster_n, images, image_n, yx), exported


def _column(values: Any) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    return tuple(map(str, values.categories)), np.asarray(values.codes, np.int32)


def _experts(file: Path, clustering: Clustering) -> dict[str, Labels]:
    """Everybody's labels of these clusters. A copy is read, so that the study is not written to."""
    from maskless.annotate.store import LabelStore

    with tempfile.TemporaryDirectory(prefix="maskless-labels-") as folder:
        copy = Path(folder) / LABELS
        _copy(file, copy)
        store = LabelStore(copy, clustering)
        try:
            found = {who: store.state(who) for who in store.experts()}
        finally:
            store.close()
    return {who: labels for who, labels in found.items() if _named(labels)}


def _named(labels: Labels) -> bool:
    return any(group.name or any(group.by_image.values()) for group in labels.groups.values())


def _copy(file: Path, target: Path) -> None:
    last: sqlite3.Error | None = None
    log = file.with_name(f"{file.name}-wal")
    # Without a log the file is all there is; it is opened in the way that writes nothing beside
    # it. So is it where a log cannot be opened, in a folder that cannot be written to.
    for way in ("mode=ro", "immutable=1") if log.exists() else ("immutable=1",):
        try:
            source = sqlite3.connect(f"{file.resolve().as_uri()}?{way}", uri=True)
            copy = sqlite3.connect(target)
            try:
                source.backup(copy)
                return
            finally:
                source.close()
                copy.close()
        except sqlite3.Error as error:
            last = error
    raise InputError("the names cannot be read", file=file, found=last)


def _digest(codes_n: NDArray[np.int32]) -> str:
    import hashlib

    return hashlib.sha256(codes_n.astype("<i4").tobytes()).hexdigest()
