"""Cohorts to simulate, by name. Profiles follow what is known of lymphoid tissue and marrow."""

from __future__ import annotations

from dataclasses import replace

from maskless.errors import SettingsError
from maskless.simulate.bone_marrow import BONE_MARROW
from maskless.simulate.model import CellType, Expression, Marker, Preset, Tissue, Zone

_DEMO_MARKERS = (
    Marker("CD45", "Sm152", "membrane", 22.0, 0.3),
    Marker("CD3", "Er170", "membrane", 7.0, 0.2),
    Marker("CD4", "Gd156", "membrane", 6.0, 0.3),
    Marker("CD8a", "Dy162", "membrane", 7.0, 0.6, nonspecific=0.06),
    Marker("CD20", "Dy161", "membrane", 65.0, 0.2, nonspecific=0.01),
    Marker("CD68", "Tb159", "granular", 30.0, 2.0, nonspecific=0.15),
    Marker("CD11b", "Sm149", "membrane", 8.0, 0.2, nonspecific=0.06),
    Marker("HLA-DR", "Yb174", "membrane", 40.0, 0.4, nonspecific=0.06),
    Marker("CD138", "Nd150", "membrane", 25.0, 0.2),
    Marker("CD31", "Eu151", "membrane", 30.0, 0.3, nonspecific=0.04),
    Marker("alphaSMA", "Pr141", "cytoplasm", 60.0, 1.0, nonspecific=0.05),
    Marker("MPO", "Yb173", "granular", 50.0, 0.3, nonspecific=0.05),
    Marker("GranzymeB", "Er167", "cap", 16.0, 0.3, nonspecific=0.06),
    Marker("Ki67", "Er168", "nuclear", 18.0, 0.2),
    Marker("HistoneH3", "Yb176", "nuclear", 190.0, 3.0, "nuclear"),
    Marker("DNA1", "Ir191", "nuclear", 140.0, 2.0, "nuclear"),
    Marker("131Xe", "Xe131", "none", 0.0, 119.0, "background"),
    Marker("138Ba", "Ba138", "none", 0.0, 0.7, "background"),
)

_DEMO_TYPES = (
    CellType(
        "B cell",
        {
            "CD45": 0.8,
            "CD20": Expression(1.0, spread=0.7, gradient=0.2),
            "HLA-DR": 0.8,
            "Ki67": Expression(1.0, fraction=0.15),
        },
    ),
    CellType("CD4 T cell", {"CD45": 1.0, "CD3": 1.0, "CD4": 1.0, "Ki67": Expression(0.9, 0.05)}),
    CellType(
        "CD8 T cell",
        {
            "CD45": 1.0,
            "CD3": 0.9,
            "CD8a": Expression(1.0, gradient=-0.1),
            "GranzymeB": Expression(1.0, fraction=0.4, gradient=0.3),
        },
    ),
    CellType(
        "Macrophage",
        {
            "CD45": 0.5,
            "CD4": 0.3,
            "CD68": Expression(1.0, spread=0.7),
            "CD11b": 0.6,
            "HLA-DR": Expression(0.7, gradient=0.3),
        },
        nucleus_um=3.7,
        rim_um=2.2,
        elongation=1.35,
        irregularity=0.16,
        eccentric_um=0.8,
    ),
    CellType(
        "Neutrophil",
        {"CD45": 0.5, "CD11b": 1.2, "MPO": Expression(1.0, gradient=-0.25)},
        nucleus_um=3.0,
        rim_um=1.3,
        irregularity=0.12,
    ),
    CellType(
        "Plasma cell",
        {"CD45": 0.3, "CD138": 1.0, "HLA-DR": 0.3},
        nucleus_um=3.2,
        rim_um=1.8,
        elongation=1.3,
        eccentric_um=1.3,
    ),
    CellType(
        "Endothelial cell",
        {"CD31": 1.0},
        nucleus_um=2.9,
        rim_um=0.9,
        elongation=2.4,
        irregularity=0.08,
    ),
    CellType(
        "Stromal cell",
        {"alphaSMA": Expression(1.0, spread=0.5)},
        nucleus_um=2.8,
        rim_um=1.2,
        elongation=2.8,
        irregularity=0.1,
    ),
)

_DEMO_ZONES = (
    Zone(
        "follicle",
        0.34,
        1.3,
        {
            "B cell": 0.84,
            "CD4 T cell": 0.1,
            "CD8 T cell": 0.015,
            "Macrophage": 0.03,
            "Stromal cell": 0.015,
        },
    ),
    Zone(
        "T zone",
        0.26,
        1.15,
        {
            "B cell": 0.12,
            "CD4 T cell": 0.52,
            "CD8 T cell": 0.22,
            "Macrophage": 0.06,
            "Endothelial cell": 0.05,
            "Stromal cell": 0.03,
        },
    ),
    Zone(
        "red pulp",
        0.40,
        0.65,
        {
            "B cell": 0.06,
            "CD4 T cell": 0.08,
            "CD8 T cell": 0.15,
            "Macrophage": 0.27,
            "Neutrophil": 0.17,
            "Plasma cell": 0.06,
            "Endothelial cell": 0.13,
            "Stromal cell": 0.08,
        },
    ),
)

DEMO = Preset("demo", _DEMO_MARKERS, _DEMO_TYPES, Tissue(_DEMO_ZONES))

PRESETS = {preset.name: preset for preset in (DEMO, BONE_MARROW)}

DENSITIES = {"sparse": 50.0, "medium": 100.0, "spleen": 160.0, "dense": 220.0}
"""Nuclei on 100 x 100 um, by name; the spleen's as counted in imaging mass cytometry of it."""


def get_preset(
    preset: str | Preset,
    *,
    images: int | None = None,
    size_px: int | None = None,
    density: float | str | None = None,
) -> Preset:
    """A preset by name, with changes.

    Parameters
    ----------
    preset
        ``"demo"``, ``"bone_marrow"`` or a preset of one's own.
    images
        Number of images.
    size_px
        Edge of an image.
    density
        Nuclei on 100 x 100 um, or a name in :data:`DENSITIES`; a few of them are hidden, and
        they are not in the truth.

    Raises
    ------
    SettingsError
        If there is no such preset or a value makes no sense.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise SettingsError(
                f"there is no simulated cohort {preset!r}; choose one of {', '.join(PRESETS)}"
            )
        preset = PRESETS[preset]
    if isinstance(density, str):
        if density not in DENSITIES:
            raise SettingsError(
                f"there is no density {density!r}; give a number of cells on 100 x 100 um "
                f"or one of {', '.join(DENSITIES)}"
            )
        density = DENSITIES[density]
    if images is not None and images < 1:
        raise SettingsError(f"images must be at least 1, not {images}")
    if size_px is not None and size_px < 16:
        raise SettingsError(f"size_px must be at least 16, not {size_px}")
    if density is not None and not 0 < density <= 400:
        raise SettingsError(
            f"density must be above 0 and at most 400 cells on 100 x 100 um, not {density}"
        )
    return replace(
        preset,
        images=preset.images if images is None else images,
        size_px=preset.size_px if size_px is None else size_px,
        density=preset.density if density is None else float(density),
    )
