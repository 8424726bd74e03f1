"""The cohort of the source paper, simulated: neuroblastoma bone marrow, 34 channels.

32 proteins and two nuclear channels are seen by the encoder, as in the paper's patches of 34
channels; two background metals come on top. Seven types; T cells in seven subtypes.
"""

from __future__ import annotations

from maskless.simulate.model import CellType, Expression, Marker, Preset, Tissue, Zone

_MARKERS = (
    Marker("CD45", "Y89", "membrane", 25.0, 0.3),
    Marker("CD3", "Pr141", "membrane", 7.0, 0.25),
    Marker("CD4", "Nd142", "membrane", 6.0, 0.3),
    Marker("CD8a", "Nd143", "membrane", 7.0, 0.6, nonspecific=0.06),
    Marker("CD20", "Nd144", "membrane", 40.0, 0.3),
    Marker("CD79a", "Nd145", "cytoplasm", 12.0, 0.3),
    Marker("CD34", "Nd146", "membrane", 20.0, 0.3),
    Marker("CD38", "Sm147", "membrane", 15.0, 0.4, nonspecific=0.08),
    Marker("CD11b", "Nd148", "membrane", 10.0, 0.3, nonspecific=0.06),
    Marker("CD11c", "Sm149", "membrane", 14.0, 0.3, nonspecific=0.06),
    Marker("CD14", "Nd150", "membrane", 18.0, 0.3),
    Marker("CD15", "Eu151", "membrane", 45.0, 0.4, nonspecific=0.04),
    Marker("CD16", "Sm152", "membrane", 22.0, 0.4, nonspecific=0.05),
    Marker("CD24", "Eu153", "membrane", 18.0, 0.4, nonspecific=0.06),
    Marker("CD44", "Sm154", "membrane", 30.0, 0.5, nonspecific=0.08),
    Marker("CD45RA", "Gd155", "membrane", 18.0, 0.3),
    Marker("CD45RO", "Gd156", "membrane", 16.0, 0.3),
    Marker("CD56", "Gd158", "membrane", 25.0, 0.3, nonspecific=0.04),
    Marker("CD57", "Tb159", "membrane", 14.0, 0.3, nonspecific=0.05),
    Marker("CD68", "Gd160", "granular", 30.0, 2.0, nonspecific=0.12),
    Marker("FOXP3", "Dy161", "nuclear", 8.0, 0.3),
    Marker("GATA3", "Dy162", "nuclear", 14.0, 0.3, nonspecific=0.06),
    Marker("GD2", "Dy163", "membrane", 45.0, 0.4, nonspecific=0.04),
    Marker("GranzymeB", "Dy164", "cap", 14.0, 0.3),
    Marker("HLA-ABC", "Ho165", "membrane", 30.0, 0.4, nonspecific=0.1),
    Marker("HLA-DR", "Er166", "membrane", 35.0, 0.4, nonspecific=0.06),
    Marker("Ki67", "Er167", "nuclear", 18.0, 0.2),
    Marker("LAG3", "Er168", "membrane", 6.0, 0.3, nonspecific=0.08),
    Marker("MPO", "Tm169", "granular", 45.0, 0.3, nonspecific=0.05),
    Marker("PD1", "Er170", "membrane", 7.0, 0.3, nonspecific=0.08),
    Marker("SOX10", "Yb171", "nuclear", 12.0, 0.3, nonspecific=0.06),
    Marker("Vimentin", "Yb172", "cytoplasm", 40.0, 0.8, nonspecific=0.08),
    Marker("HistoneH3", "Yb176", "nuclear", 170.0, 3.0, "nuclear"),
    Marker("DNA1", "Ir191", "nuclear", 130.0, 2.0, "nuclear"),
    Marker("131Xe", "Xe131", "none", 0.0, 119.0, "background"),
    Marker("138Ba", "Ba138", "none", 0.0, 0.7, "background"),
)


def _t_cell(subtype: str, **more: Expression | float) -> CellType:
    names = {"CD8": "CD8a"}
    expression: dict[str, Expression | float] = {
        "CD45": 1.0,
        "CD3": 1.0,
        "CD44": 0.5,
        "HLA-ABC": 0.8,
        "Vimentin": 0.4,
    }
    expression.update({names.get(name, name): value for name, value in more.items()})
    return CellType("T", expression, subtype, nucleus_um=3.2, rim_um=0.8)


_GRANULOCYTE = {"nucleus_um": 3.2, "rim_um": 1.5, "irregularity": 0.12}
_MYELOID = {"nucleus_um": 3.5, "rim_um": 1.8, "irregularity": 0.12, "eccentric_um": 0.7}

_TYPES = (
    _t_cell("CD4 naive", CD4=1.0, CD45RA=1.0),
    _t_cell("CD4 memory", CD4=1.0, CD45RO=1.0, CD44=1.0, PD1=Expression(0.6, 0.3)),
    _t_cell("regulatory", CD4=0.9, CD45RO=0.7, FOXP3=1.0),
    _t_cell("CD8 naive", CD8=1.0, CD45RA=1.0),
    _t_cell("CD8 memory", CD8=1.0, CD45RO=0.9, CD44=0.9, GranzymeB=Expression(0.5, 0.25)),
    _t_cell("CD8 effector", CD8=0.9, CD45RA=0.6, CD57=1.0, GranzymeB=Expression(1.2, gradient=0.2)),
    _t_cell("CD8 exhausted", CD8=0.9, CD45RO=0.8, PD1=1.3, LAG3=1.0, Ki67=Expression(0.9, 0.3)),
    CellType(
        "tumour",
        {
            "GD2": Expression(1.0, spread=0.5, gradient=0.3),
            "CD56": Expression(1.0, spread=0.4),
            "GATA3": Expression(0.9, fraction=0.85),
            "SOX10": Expression(0.4, fraction=0.2),
            "CD24": 0.5,
            "HLA-ABC": Expression(0.3, fraction=0.5),
            "Ki67": Expression(1.0, fraction=0.35),
        },
        "GD2 tumour",
        nucleus_um=3.9,
        rim_um=0.9,
        irregularity=0.08,
    ),
    CellType(
        "tumour",
        {
            "GD2": Expression(0.3, fraction=0.7),
            "CD44": 1.0,
            "Vimentin": 1.2,
            "CD56": 0.5,
            "SOX10": 0.9,
            "HLA-ABC": 0.6,
        },
        "mesenchymal tumour",
        nucleus_um=3.9,
        rim_um=1.4,
        elongation=1.5,
        irregularity=0.1,
    ),
    CellType(
        "granulocyte",
        {
            "CD45": 0.4,
            "CD15": Expression(1.0, gradient=0.2),
            "CD16": Expression(0.8, spread=0.5, gradient=0.3),
            "CD11b": 1.0,
            "CD24": 0.8,
            "CD44": 0.6,
            "MPO": Expression(0.6, gradient=-0.3),
            "HLA-ABC": 0.6,
            "CD57": Expression(0.15, fraction=0.2),
        },
        "mature granulocyte",
        **_GRANULOCYTE,
    ),
    CellType(
        "granulocyte",
        {
            "CD45": 0.3,
            "CD15": Expression(0.7, gradient=0.3),
            "CD11b": Expression(0.4, fraction=0.7),
            "CD24": 0.3,
            "MPO": Expression(1.3, gradient=-0.2),
            "CD38": Expression(0.3, fraction=0.5),
            "Ki67": Expression(0.8, fraction=0.25),
            "HLA-ABC": 0.5,
        },
        "immature granulocyte",
        nucleus_um=3.8,
        rim_um=1.5,
        irregularity=0.08,
    ),
    CellType(
        "B",
        {
            "CD45": 0.8,
            "CD20": Expression(1.0, spread=0.4),
            "CD79a": 1.0,
            "CD24": 0.5,
            "CD45RA": 0.9,
            "HLA-DR": 0.9,
            "HLA-ABC": 0.8,
            "CD38": Expression(0.4, fraction=0.3),
        },
        "B",
        nucleus_um=3.2,
        rim_um=0.8,
    ),
    CellType(
        "MO/DC/NK",
        {
            "CD45": 0.8,
            "CD14": Expression(1.0, gradient=-0.2),
            "CD11b": 0.7,
            "CD11c": 0.5,
            "CD68": Expression(0.8, spread=0.5),
            "CD4": 0.25,
            "HLA-DR": Expression(0.7, gradient=0.3),
            "CD44": 0.9,
            "Vimentin": 0.8,
            "HLA-ABC": 0.9,
        },
        "monocyte",
        **_MYELOID,
    ),
    CellType(
        "MO/DC/NK",
        {
            "CD45": 0.8,
            "CD11c": 1.0,
            "HLA-DR": 1.4,
            "CD4": 0.25,
            "CD44": 0.7,
            "Vimentin": 0.7,
            "HLA-ABC": 1.0,
        },
        "dendritic cell",
        **_MYELOID,
    ),
    CellType(
        "MO/DC/NK",
        {
            "CD45": 0.9,
            "CD56": 0.5,
            "CD57": Expression(0.8, fraction=0.5),
            "CD16": 0.6,
            "GranzymeB": 1.0,
            "CD45RA": 0.7,
            "HLA-ABC": 0.9,
        },
        "NK cell",
        nucleus_um=3.4,
        rim_um=1.0,
    ),
    CellType(
        "progenitor",
        {
            "CD45": 0.3,
            "CD34": Expression(1.0, spread=0.4, gradient=-0.3),
            "CD38": Expression(0.7, gradient=0.3),
            "HLA-DR": 0.5,
            "CD44": 0.6,
            "MPO": Expression(0.25, fraction=0.35),
            "Ki67": Expression(1.0, fraction=0.4),
            "HLA-ABC": 0.6,
        },
        "progenitor",
        nucleus_um=3.9,
        rim_um=0.9,
    ),
    CellType(
        "other",
        {"CD44": 0.25, "Ki67": Expression(1.0, fraction=0.3), "HLA-ABC": Expression(0.3, 0.4)},
        "erythroid",
        nucleus_um=3.1,
        rim_um=0.7,
    ),
    CellType(
        "other",
        {"Vimentin": Expression(1.0, spread=0.5), "CD44": 0.6, "HLA-ABC": 0.5},
        "stromal",
        nucleus_um=3.0,
        rim_um=1.2,
        elongation=2.6,
        irregularity=0.1,
    ),
    CellType(
        "other",
        {"CD34": 0.7, "Vimentin": 0.9, "HLA-ABC": 1.0},
        "endothelial",
        nucleus_um=2.8,
        rim_um=0.8,
        elongation=2.6,
        irregularity=0.08,
    ),
)

_T_SHARES = {
    "CD4 naive": 0.20,
    "CD4 memory": 0.22,
    "regulatory": 0.06,
    "CD8 naive": 0.17,
    "CD8 memory": 0.18,
    "CD8 effector": 0.12,
    "CD8 exhausted": 0.05,
}


def _mix(t_share: float, others: dict[str, float]) -> dict[str, float]:
    return {**{name: t_share * share for name, share in _T_SHARES.items()}, **others}


_ZONES = (
    Zone(
        "tumour nest",
        0.15,
        1.25,
        _mix(
            0.08,
            {
                "GD2 tumour": 0.68,
                "mesenchymal tumour": 0.06,
                "mature granulocyte": 0.05,
                "immature granulocyte": 0.03,
                "monocyte": 0.04,
                "erythroid": 0.04,
                "stromal": 0.02,
            },
        ),
    ),
    Zone(
        "lymphoid",
        0.20,
        1.15,
        _mix(
            0.42,
            {
                "B": 0.25,
                "mature granulocyte": 0.08,
                "immature granulocyte": 0.04,
                "monocyte": 0.05,
                "dendritic cell": 0.03,
                "NK cell": 0.03,
                "progenitor": 0.03,
                "erythroid": 0.05,
                "endothelial": 0.02,
            },
        ),
    ),
    Zone(
        "marrow",
        0.65,
        0.9,
        _mix(
            0.13,
            {
                "GD2 tumour": 0.015,
                "mesenchymal tumour": 0.01,
                "mature granulocyte": 0.22,
                "immature granulocyte": 0.2,
                "B": 0.06,
                "monocyte": 0.07,
                "dendritic cell": 0.02,
                "NK cell": 0.02,
                "progenitor": 0.06,
                "erythroid": 0.13,
                "stromal": 0.04,
                "endothelial": 0.02,
            },
        ),
    ),
)

BONE_MARROW = Preset(
    "bone_marrow",
    _MARKERS,
    _TYPES,
    Tissue(_ZONES, patient_spread=0.4),
    images=8,
    images_per_patient=8,
    size_px=500,
    density=107.0,
)
