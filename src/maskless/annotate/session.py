"""What the page asks of a study: reading its cells, writing labels. No HTTP here."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate import asked
from maskless.annotate.agreement import agreement, conflicts, differences
from maskless.annotate.export import write_phenotypes
from maskless.annotate.history import VERSION
from maskless.annotate.image_table import image_columns
from maskless.annotate.labels import Labels
from maskless.annotate.patches import example_cells, patches
from maskless.annotate.places import carried_over
from maskless.annotate.splitting import Jobs
from maskless.annotate.store import LabelStore
from maskless.annotate.study_cells import load_cells
from maskless.annotate.suggest import load_table, suggestions
from maskless.annotate.tables import GroupTable, as_json, group_table
from maskless.annotate.tiles import TILE_PX, tiles_of
from maskless.annotate.why import Why
from maskless.errors import InputError, MasklessError
from maskless.report.colors import cluster_colors, marker_colors
from maskless.storage import read_json
from maskless.study import Study

_TABLES_KEPT = 8
UNKNOWN = "-1"


class Session:
    """A study that is being annotated.

    Parameters
    ----------
    folder
        Of the study.

    Raises
    ------
    MasklessError
        If there is no study, or it has no clusters yet.
    """

    def __init__(self, folder: Path) -> None:
        self.study = Study.open(folder)
        self.cells = load_cells(self.study.cells_file)
        clustering = self.cells.clustering
        self.cells.columns.update(image_columns(folder, clustering))
        self.store = LabelStore(folder / "labels.sqlite", clustering)
        inventory = (
            read_json(self.study.inventory_file) if self.study.inventory_file.exists() else {}
        )
        self.tiles = tiles_of(self.study.images_folder, inventory, clustering)
        self.why = Why(self.cells, self.study.encoder_folder)
        self.jobs = Jobs(self.study.cells_file)
        self._tables: OrderedDict[str, GroupTable] = OrderedDict()
        self._table_lock = threading.Lock()
        self._carry_over()

    def close(self) -> None:
        """Stop jobs and close the labels."""
        self.jobs.close()
        self.store.close()

    def _carry_over(self) -> None:
        """Bring names of an earlier clustering to this one, for those who have none here yet."""
        here = set(self.store.experts())
        for old, states in self.store.earlier():
            for who, labels in states.items():
                if who not in here:
                    here.add(who)
                    change = carried_over(old, labels, self.cells.clustering)
                    if change.fields:
                        doubtful = sum(bool(f.get("unsure")) for f in change.fields.values())
                        told = f"{len(change.fields)} names carried over, {doubtful} doubtful"
                        self.store.add(who, "carry", told, change, revision=None)

    def prepare(self) -> None:
        """Compute the clusters' table before somebody asks for it."""
        with suppress(MasklessError):  # said when somebody asks
            self.table("", "group")

    def describe(self) -> dict[str, Any]:
        """What does not change while the page is open."""
        cells = self.cells
        return {
            "name": self.study.folder.resolve().name,
            "cells": cells.count,
            "markers": list(cells.markers),
            "positive_above": cells.positive_above_m.tolist(),
            "channels": self._channels(),
            "images": [
                {
                    "name": image.name,
                    "rows": image.rows,
                    "columns": image.columns,
                    "um_per_pixel": image.um_per_pixel,
                    "levels": self.tiles.levels(number),
                    "pixels": image.file is not None,
                }
                for number, image in enumerate(self.tiles.images)
            ],
            "tile_px": TILE_PX,
            "columns": {name: list(column.names) for name, column in cells.columns.items()},
            "palette": cluster_colors([str(i) for i in range(60)]),
            "colors": dict(
                zip(cells.clustering.ids, cluster_colors(cells.clustering.ids), strict=True)
            ),
            "telling": self._telling(),
            "fingerprint": cells.clustering.fingerprint,
        }

    def state(self, who: str) -> dict[str, Any]:
        """Everything about an expert's labels but which cell is where."""
        history = self.store.history(who)
        labels = history.labels
        others = [name for name in self.store.experts() if name != who]
        states = [(who, labels), *((n, self.store.history(n).labels) for n in others)]
        undo, redo = history.next_undo, history.next_redo
        return {
            "who": who,
            "revision": history.revision,
            "groups": [
                {"id": name, "count": int(labels.counts[i]), **labels.groups[name].as_json()}
                for i, name in enumerate(labels.ids)
            ],
            "cells": labels.cells_digest,
            "undo": undo.why if undo else None,
            "redo": redo.why if redo else None,
            "experts": self.store.experts(),
            "conflicts": conflicts(states),
        }

    def history(self, who: str) -> list[dict[str, Any]]:
        """Every operation of an expert, the newest first."""
        history = self.store.history(who)
        in_force = history.in_force
        return [
            {
                "id": o.id,
                "at": o.at,
                "who": o.who,
                "kind": o.kind,
                "why": o.why,
                "in_force": o.id in in_force or o.kind == VERSION,
            }
            for o in reversed(history.operations)
        ]

    def codes(self, who: str) -> NDArray[np.uint16]:
        """For each cell the position of its group."""
        return self.store.history(who).labels.group_n.astype("<u2")

    def activation(self, marker: int) -> tuple[NDArray[np.uint8], float, float]:
        """A marker's activations as bytes, with the values of 0 and 255."""
        if not 0 <= marker < len(self.cells.markers):
            raise InputError("there is no such marker", found=marker)
        column = self.cells.activations_nm[:, marker]
        low, high = (
            float(v) for v in np.percentile(column[:: max(1, len(column) // 200_000)], [0.5, 99.5])
        )
        high = max(high, low + 1e-6)
        scaled = np.clip((column - low) / (high - low), 0, 1)
        return np.rint(scaled * 255).astype(np.uint8), low, high

    def table(self, who: str, by: str) -> dict[str, Any]:
        """Heat map of groups or of phenotypes, with suggestions of names."""
        labels = self.store.state(who)
        clustering = self.cells.clustering
        if by == "phenotype":
            codes, names = labels.phenotypes(clustering.images_n, clustering.images)
        else:
            codes, names = labels.group_n, labels.ids
        unknown = np.array([name in (UNKNOWN, "unnamed", "(none)") for name in names])
        table = as_json(self._table(codes, len(names)), names, unknown, self.cells.markers)
        types, source = load_table(self.study.folder)
        table["suggestions"] = suggestions(types, np.array(table["z"]), self.cells.markers)
        table["suggested_by"] = source
        return table

    def cell(self, who: str, row: int) -> dict[str, Any]:
        """What is known of a cell."""
        if not 0 <= row < self.cells.count:
            raise InputError("there is no such cell", found=row)
        labels = self.store.history(who).labels
        clustering = self.cells.clustering
        image = int(clustering.images_n[row])
        y, x = (float(v) for v in clustering.yx_n2[row])
        return {
            "row": row,
            "group": labels.ids[int(labels.group_n[row])],
            "image": image,
            "x": x,
            "y": y,
            "activations": [round(float(v), 4) for v in self.cells.activations_nm[row]],
            "columns": {n: c.names[int(c.codes_n[row])] for n, c in self.cells.columns.items()},
            "beside": self._beside(row, labels),
            "alike": [
                {"row": other, "group": labels.ids[int(labels.group_n[other])]}
                for other in self.cells.neighbours(row)
            ],
        }

    def gallery(self, ask: asked.AskGallery) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """Example cells and their patches."""
        if any(channel >= len(self.tiles.channels) for channel in ask.channels):
            raise InputError("there is no such channel")
        clustering = self.cells.clustering
        labels = self.store.history(ask.chosen.who).labels
        rows = example_cells(
            self.cells.activations_nm,
            labels.group_n,
            clustering.images_n,
            self.rows(ask.chosen),
            ask.kind,
            ask.count,
            ask.seed,
        )
        return rows, patches(
            self.tiles, clustering.images_n, clustering.yx_n2, rows, ask.channels, ask.view_um
        )

    def explain(self, ask: asked.AskWhy) -> list[dict[str, Any]]:
        """Shares of the markers in a difference."""
        second = None if ask.second is None else self.rows(ask.second)
        return self.why.groups(self.rows(ask.first), second)

    def rows(self, chosen: asked.Chosen) -> NDArray[np.uint32]:
        """Cells of groups, or those given as bits."""
        if chosen.cells is not None:
            return asked.rows_of_bits(chosen.cells, self.cells.count)
        labels = self.store.history(chosen.who).labels
        places = [labels.place(group) for group in chosen.groups]
        return np.flatnonzero(np.isin(labels.group_n, places)).astype(np.uint32)

    def compare(self, first: tuple[str, int | None], second: tuple[str, int | None]) -> Any:
        """Two experts, or two versions, side by side; each is (who, operation or None)."""
        one, two = (self.store.state(*which) for which in (first, second))
        place = (self.cells.clustering.images_n, self.cells.clustering.images)
        found = agreement(one.phenotypes(*place), two.phenotypes(*place))
        return {
            "kappa": None if math.isnan(found.kappa) else round(found.kappa, 4),
            "share": round(found.share, 4),
            "rows": list(found.names_a),
            "columns": list(found.names_b),
            "table": found.table_ab.tolist(),
            "differences": differences(one, two),
        }

    def export(self, who: str) -> dict[str, Any]:
        """Write an expert's names into cells.h5ad."""
        labels = self.store.state(who)
        place = (self.cells.clustering.images_n, self.cells.clustering.images)
        codes, names = labels.phenotypes(*place)
        broad = None
        if any(group.broad for group in labels.groups.values()):
            broad = labels.phenotypes(*place, broad=True)
        with self.study.lock():
            fresh = load_cells(self.study.cells_file).clustering.fingerprint
            if fresh != self.cells.clustering.fingerprint:
                raise InputError(
                    "the study was clustered again since this page was opened",
                    file=self.study.cells_file,
                    do="Stop the server and start it again: names are carried over",
                )
            write_phenotypes(self.study.cells_file, codes, names, broad)
        return {"file": str(self.study.cells_file), "phenotypes": len(names)}

    def _table(self, codes_n: NDArray[np.int32], groups: int) -> GroupTable:
        key = f"{_digest(codes_n)} {groups}"
        with self._table_lock:
            if key not in self._tables:
                clustering = self.cells.clustering
                self._tables[key] = group_table(
                    codes_n,
                    groups,
                    self.cells.activations_nm,
                    self.cells.positive_above_m,
                    clustering.images_n,
                    len(clustering.images),
                )
                while len(self._tables) > _TABLES_KEPT:
                    self._tables.popitem(last=False)
            return self._tables[key]

    def _channels(self) -> list[dict[str, Any]]:
        names = list(self.tiles.channels)
        colors = iter(marker_colors(self._telling(), self.cells.nuclear))
        given = {name: next(colors) for name in self._telling()}
        return [
            {"name": name, "nuclear": name in self.cells.nuclear, "color": given.get(name, "")}
            for name in names
        ]

    def _telling(self) -> list[str]:
        """Markers that the tissue shows first: those that tell most clusters apart."""
        if not self.tiles.available:
            return []
        clustering = self.cells.clustering
        table = self._table(clustering.codes_n, len(clustering.ids))
        spread = table.means_gm[table.counts_g > 0].std(axis=0)
        good = [m for m in np.argsort(-spread) if self.cells.markers[m] in self.tiles.channels]
        names = [
            self.cells.markers[m] for m in good if self.cells.markers[m] not in self.cells.nuclear
        ]
        nuclear = [name for name in self.cells.nuclear if name in self.tiles.channels]
        return [*names[: 5 if nuclear else 6], *nuclear[:1]]

    def _beside(self, row: int, labels: Labels, most: int = 8) -> list[dict[str, Any]]:
        """The nearest cells in the tissue."""
        clustering = self.cells.clustering
        image = int(clustering.images_n[row])
        there = np.flatnonzero(clustering.images_n == image)
        distance = np.linalg.norm(clustering.yx_n2[there] - clustering.yx_n2[row], axis=1)
        um = self.tiles.images[image].um_per_pixel
        nearest = [i for i in np.argsort(distance, kind="stable")[: most + 1] if there[i] != row]
        return [
            {
                "row": int(there[i]),
                "group": labels.ids[int(labels.group_n[there[i]])],
                "um": round(float(distance[i]) * um, 1),
            }
            for i in nearest[:most]
        ]


def _digest(array: NDArray[Any]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=12).hexdigest()
