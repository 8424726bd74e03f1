"""`maskless info`: what a study holds, what is stale, what was found wrong, how good stains are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskless.freshness import is_fresh, stamped
from maskless.stages import compensation
from maskless.storage import read_json
from maskless.study import STAGES, Study

if TYPE_CHECKING:
    from anndata import AnnData


def describe(folder: Path) -> str:
    """Tell the state of a study in plain words.

    Returns
    -------
    str
        Stages, images with their problems, markers with their contrast.

    Raises
    ------
    MasklessError
        If there is no study, or a file of it is damaged.
    """
    from maskless.cells_file import read_cells
    from maskless.segmentation import segmentation_state
    from maskless.staining import describe_quality

    study = Study.open(folder)
    lines = [f"{folder} (preset {study.config.preset}, seed {study.config.seed})", "", "stages"]
    seconds = {r["stage"]: r for r in study.latest_records()}
    for stage in STAGES:
        state = "up to date" if is_fresh(study, stage) else "stale" if stamped(study, stage) else ""
        record = seconds.get(stage)
        cost = f"{record['seconds']:>9.1f} s {record['peak_mib']:>7} MiB" if record else ""
        lines.append(f"  {stage:<8} {state or 'not run yet':<12}{cost}")
    benchmark = segmentation_state(study)
    if benchmark is not None:
        lines.append(f"  segment  {benchmark} (the segmentation benchmark)")
    if study.inventory_file.exists():
        lines += ["", *_images(study)]
    if spillover := compensation(study):
        lines.append(f"  spillover compensated: {spillover['pairs']} pairs of channels")
        lines += [f"  {problem}" for problem in spillover["problems"]]
    if study.inventory_file.exists() and (told := describe_quality(study)):
        lines += ["", *told]
    if study.cells_file.exists():
        cells = read_cells(study.cells_file)
        lines += ["", *_cells(cells)]
    return "\n".join(lines)


def _images(study: Study) -> list[str]:
    from maskless.staining import image_problems

    content = read_json(study.inventory_file)
    used = [c["name"] for c in content["panel"] if c["used"]]
    unused = [c["name"] for c in content["panel"] if not c["used"]]
    lines = [f"{len(content['images'])} images, {len(used)} markers: {', '.join(used)}"]
    if unused:
        lines.append(f"  left out of training: {', '.join(unused)}")
    for entry in content["images"]:
        if about := entry.get("about"):
            lines.append(f"  {entry['name']}: {', '.join(f'{k} {v}' for k, v in about.items())}")
    for name, problems in image_problems(study).items():
        lines += [f"  {name}: {problem}" for problem in problems]
    lines += [f"  {entry['name']} left out: {entry['reason']}" for entry in content["left_out"]]
    return lines


def _cells(cells: AnnData) -> list[str]:
    lines = [f"{cells.n_obs} cells"]
    if "cluster" in cells.obs:
        clusters = [c for c in cells.obs["cluster"].cat.categories if c != "-1"]
        unknown = float((cells.obs["cluster"] == "-1").mean())
        lines[0] += f" in {len(clusters)} clusters, {unknown:.1%} unknown"
    if "positive_above" not in cells.var:
        return lines
    lines.append("  marker            positive  activation of positive : other cells")
    activations = np.asarray(cells.X)
    for column in np.flatnonzero(cells.var["used"].to_numpy()):
        values = activations[:, column]
        positive = values > float(cells.var["positive_above"].iloc[column])
        contrast = "no positive cells"
        if positive.any() and not positive.all():
            contrast = f"{values[positive].mean():.2f} : {values[~positive].mean():.2f}"
        lines.append(f"  {cells.var_names[column]:<18}{positive.mean():>7.1%}  {contrast}")
    return lines
