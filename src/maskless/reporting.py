"""The report of a study on disk, put together from figures that were drawn before.

Figures of the report stage are told in figures/figures.json, those of ``maskless subcluster`` in
figures/subclusters.json, so that either can renew the page without drawing the others again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from maskless.errors import InputError
from maskless.freshness import is_fresh, stamped
from maskless.storage import read_json, write_json
from maskless.study import Study

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.report import Drawn

DRAWN, SUBCLUSTERS = "figures.json", "subclusters.json"


def write_page(study: Study, cells: AnnData, figures: Mapping[str, Drawn]) -> None:
    """Write report.html with these figures and those of subclusters."""
    from maskless.assignment.on_disk import warnings_of
    from maskless.config import to_toml
    from maskless.report import write_report
    from maskless.stages import compensation
    from maskless.staining import image_problems

    left_out = read_json(study.inventory_file)["left_out"]
    problems = {name: told for name, told in image_problems(study).items() if told}
    problems |= {e["name"]: [f"left out: {e['reason']}"] for e in left_out}
    write_report(
        study.report_file,
        study.folder.resolve().name,
        cells,
        {**figures, **_subclusters(study)},
        study.latest_records(),
        problems,
        to_toml(study.config),
        [*compensation(study).get("problems", ()), *warnings_of(cells)],
    )


def note_figures(study: Study, figures: Mapping[str, Drawn], fingerprint: str | None) -> None:
    """Keep what the report stage has drawn."""
    write_json(
        study.figures_folder / DRAWN,
        {
            "fingerprint": fingerprint,
            "figures": {name: figure.title for name, figure in figures.items()},
            "captions": {name: figure.caption for name, figure in figures.items()},
        },
    )


def add_subcluster_figures(
    study: Study, cells: AnnData, of: str, figures: Mapping[str, Drawn]
) -> bool:
    """Keep the figures of a group that was divided, and show them in the report if there is one.

    Returns
    -------
    bool
        Whether the report shows them now.
    """
    from maskless.report import Drawn

    path = study.figures_folder / SUBCLUSTERS
    now = stamped(study, "cluster")
    groups = _groups(study)
    groups[of] = {stem: [figure.title, figure.caption] for stem, figure in figures.items()}
    write_json(path, {"clusters": now, "groups": groups})
    if not is_fresh(study, "report"):
        return False
    content = read_json(study.figures_folder / DRAWN)
    captions = content.get("captions", {})
    drawn = {
        stem: Drawn(title, captions.get(stem, ""), study.figures_folder / f"{stem}.png")
        for stem, title in content["figures"].items()
    }
    write_page(study, cells, drawn)
    return True


def _groups(study: Study) -> dict[str, dict[str, list[str]]]:
    """Groups that were divided since the cells were clustered, with their figures."""
    try:
        content = read_json(study.figures_folder / SUBCLUSTERS)
    except InputError:
        return {}
    if content.get("clusters") != stamped(study, "cluster"):
        return {}
    return dict(content.get("groups", {}))


def _subclusters(study: Study) -> dict[str, Drawn]:
    from maskless.report import Drawn

    found = {}
    for figures in _groups(study).values():
        for stem, (title, caption) in figures.items():
            png = study.figures_folder / f"{stem}.png"
            if png.is_file():
                found[stem] = Drawn(title, caption, png)
    return found
