"""Two labellings of the same cells side by side: two experts, or two versions of one.

The agreement beyond chance is Cohen's kappa (1960, doi:10.1177/001316446002000104), counted over
cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.labels import FIELDS, Group, Labels

Phenotypes = tuple[NDArray[np.int32], list[str]]


@dataclass(frozen=True, eq=False)
class Agreement:
    """How two labellings agree.

    Attributes
    ----------
    kappa
        Cohen's kappa; NaN where both give one and the same name to all cells.
    share
        Share of the cells with the same name.
    names_a, names_b
        Names of the rows and columns of the table.
    table_ab
        Cells with each pair of names.
    """

    kappa: float
    share: float
    names_a: tuple[str, ...]
    names_b: tuple[str, ...]
    table_ab: NDArray[np.int64]


def agreement(first: Phenotypes, second: Phenotypes) -> Agreement:
    """Compare the names that two labellings give to the same cells.

    Parameters
    ----------
    first, second
        Codes of the cells and the names of the codes, as :meth:`Labels.phenotypes` gives them.
    """
    (codes_a, names_a), (codes_b, names_b) = first, second
    size = len(names_b)
    table = np.bincount(codes_a.astype(np.int64) * size + codes_b, minlength=len(names_a) * size)
    table = table.reshape(len(names_a), size)
    total = max(int(table.sum()), 1)
    place = {name: i for i, name in enumerate(names_b)}
    common = [(i, place[name]) for i, name in enumerate(names_a) if name in place]
    share = sum(int(table[pair]) for pair in common) / total
    rows, columns = table.sum(axis=1) / total, table.sum(axis=0) / total
    chance = float(sum(rows[i] * columns[j] for i, j in common))
    kappa = float("nan") if chance >= 1 - 1e-12 else (share - chance) / (1 - chance)
    return Agreement(kappa, share, tuple(names_a), tuple(names_b), table.astype(np.int64))


def differences(first: Labels, second: Labels) -> list[dict[str, Any]]:
    """Groups that two labellings of the same clusters describe otherwise, or that differ in cells.

    Returns
    -------
    list of dict
        For each such group its id, the fields that differ as ``{field: [first, second]}``, and the
        cells it has in both.
    """
    found = []
    for name in dict.fromkeys([*first.ids, *second.ids]):
        group_a, group_b = first.groups.get(name, Group()), second.groups.get(name, Group())
        fields = {
            f: [getattr(group_a, f), getattr(group_b, f)]
            for f in FIELDS
            if getattr(group_a, f) != getattr(group_b, f)
        }
        counts = [_count(first, name), _count(second, name)]
        if fields or counts[0] != counts[1]:
            found.append({"id": name, "fields": fields, "cells": counts})
    return found


def conflicts(states: Sequence[tuple[str, Labels]]) -> dict[str, dict[str, str]]:
    """Groups to which experts give different names: group -> expert -> name.

    A group that an expert has not named is no conflict.
    """
    found = {}
    for name in dict.fromkeys(name for _, labels in states for name in labels.ids):
        given = {
            who: labels.groups[name].name
            for who, labels in states
            if name in labels.groups and labels.groups[name].name and _count(labels, name)
        }
        if len(set(given.values())) > 1:
            found[name] = given
    return found


def _count(labels: Labels, group: str) -> int:
    return int(labels.counts[labels.ids.index(group)]) if group in labels.groups else 0
