"""What a study asks for: the settings of every stage, their presets, and study.toml.

Each class is one table of study.toml; each field's description becomes its comment there.
Lengths are in micrometres, so one file serves images of any resolution.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from maskless.errors import SettingsError

Preset = Literal["default", "paper", "small"]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseModel):
    """Base of all tables: unknown keys are errors, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageSettings(Settings):
    paths: tuple[str, ...] = Field(
        (), description="image files or folders, relative to this file or absolute"
    )
    panel: str | None = Field(
        None, description="panel.csv with the columns channel, name[, metal, kind, used]"
    )
    um_per_pixel: Positive | None = Field(
        None, description="pixel size, where the files do not say it (or to overrule them)"
    )
    background: tuple[str, ...] = Field(
        (), description="channels to leave out of training, beside those the panel marks"
    )
    nuclear: tuple[str, ...] = Field(
        (), description="channels that show nuclei, beside those the panel marks"
    )


class CleanSettings(Settings):
    hot_pixels: bool = Field(True, description="replace single pixels far above their neighbours")
    hot_pixel_threshold: Positive | Literal["poisson"] = Field(
        "poisson",
        description="counts above the brightest of the 8 neighbours (steinbock: 50); poisson = "
        "what neighbours and counting noise do not explain",
    )
    spillover: str | None = Field(
        None, description="matrix to compensate spillover with: CSV, relative to this file"
    )
    background_removal: Literal["none", "automatic", "classifier", "ilastik", "probabilities"] = (
        Field(
            "none",
            description="by counts alone, brush labels, an ilastik project, or what it exported",
        )
    )
    background_files: str | None = Field(
        None,
        description="for classifier 'labels/{image}.tif', ilastik 'project.ilp', probabilities "
        "'{image}_Probabilities.tiff'; {marker} too, where each has its own",
    )
    background_class: Annotated[int, Field(ge=1)] | str = Field(
        "background", description="name (or number, from 1) of ilastik's class that is no signal"
    )
    background_channels: tuple[str, ...] = Field(
        (), description="what the ilastik project was shown, in order; empty = the marker, or all"
    )
    background_markers: tuple[str, ...] = Field(
        (), description="where to remove it; empty = all but nuclear channels"
    )
    background_weight: Literal["mask", "probability"] = Field(
        "mask", description="0 where background is likelier, or times the probability of signal"
    )
    align: str = Field(
        "none",
        description="bring every image to the same bright level: none, image, or a column of "
        "images.csv beside this file (such as batch)",
    )
    scaling: Literal["arcsinh", "percentile", "z", "none"] = Field(
        "arcsinh",
        description="arcsinh(x / cofactor) or x, divided by the cohort's percentile; z = standard "
        "deviations above the cohort's mean",
    )
    cofactor: Positive | Literal["auto"] = Field(
        "auto", description="for arcsinh; auto = from each channel's own counts, cohort-wide"
    )
    percentile: Annotated[float, Field(gt=50, le=100)] = Field(
        99.7, description="of the cohort's pixels of a channel, becomes 1"
    )


class DetectSettings(Settings):
    method: Literal["dog", "cellpose", "masks", "centres"] = Field(
        "dog", description="embedded detector, Cellpose (extra), given masks, given centres"
    )
    nuclear_radius_um: Positive = Field(
        2.2, description="radius of a nucleus; 2.0 suits dense lymphoid tissue, 2.8 epithelium"
    )
    min_distance_um: Positive = Field(2.4, description="least distance of two centres")
    peak_threshold: Fraction = Field(
        0.15, description="weakest peak, as a share of the 90th percentile of peak heights"
    )
    foreground: Positive = Field(0.75, description="times Otsu's threshold of the nuclear signal")
    files: str | None = Field(
        None,
        description="for masks or centres: a path with {image}, as 'masks/{image}.tif' or "
        "'{image}/objects.csv'",
    )
    cellpose_model: str | None = Field(None, description="for cellpose: weights file or model name")


class EncoderSettings(Settings):
    width: Annotated[int, Field(ge=1, le=64)] = Field(8, description="features of a marker")
    blocks: tuple[int, ...] = Field(
        (2,), description="NeXt-Channel blocks in each stage; stages are parted by 2 x 2 pooling"
    )
    kernel: Literal[3, 5, 7] = Field(3, description="edge of the depthwise kernel, pixels")
    expansion: Annotated[int, Field(ge=1, le=8)] = Field(
        2, description="of the block's inner layer"
    )
    stem_stride: Literal[1, 2] = Field(2, description="2 costs a quarter")
    norm: Literal["marker", "none"] = Field(
        "marker", description="marker = LayerNorm over one marker's features at each pixel"
    )
    pooling: Literal["mean", "centre"] = Field(
        "centre", description="mean of the view, or weighted towards its centre"
    )
    pooling_radius_um: Positive = Field(2.0, description="sigma of the centre weighting")
    embedding: Annotated[int, Field(ge=2, le=4096)] = Field(256, description="length N")


class TrainSettings(Settings):
    pixel_um: Positive = Field(1.0, description="pixel size of the views; images are resampled")
    view_um: tuple[Positive, ...] = Field(
        (16.0, 16.0, 14.0, 12.0), description="edges of the views of one cell"
    )
    steps: Annotated[int, Field(ge=0)] = Field(1000, description="optimiser steps (0 = untrained)")
    cells_per_step: Annotated[int, Field(ge=2)] = Field(128, description="cells in a batch")
    optimizer: Literal["adamw", "lars"] = Field(
        "adamw", description="LARS as in the paper, or AdamW"
    )
    learning_rate: Positive = Field(2e-3, description="highest, after warm-up")
    momentum: Fraction = Field(0.9, description="of LARS")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        1e-4, description="pull of the weights to zero"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(10, description="then a cosine to zero")
    temperature: Positive = Field(0.2, description="of NT-Xent")
    projection: bool = Field(True, description="a 256-256-128 head between embedding and loss")
    gain: tuple[Positive, Positive] = Field((0.8, 1.25), description="random factor on intensity")
    gain_per_marker: bool = Field(True, description="a factor for each marker, or one a view")
    marker_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.5,
        description="share of the markers that a view does not show, so that markers which go "
        "together in cells come to count; 0 = all are shown",
    )
    noise: Annotated[float, Field(ge=0)] = Field(0.1, description="largest sigma of Gaussian noise")
    zoom: tuple[Positive, Positive] = Field((0.9, 1.1), description="random magnification")
    rotate: bool = Field(True, description="by any angle")
    flip: bool = Field(True, description="left-right and up-down")
    jitter_um: Annotated[float, Field(ge=0)] = Field(1.0, description="largest shift of the centre")
    surroundings_um: tuple[NotNegative, NotNegative] = Field(
        (3.0, 6.0),
        description="beyond a radius drawn between these, a view shows the surroundings of another "
        "cell; 0, 0 = its own",
    )
    fusion: Literal["levels", "trained"] = Field(
        "levels",
        description="levels = features rotated, each marker counting as its level varies; "
        "trained = as the loss left it",
    )
    checkpoint_seconds: Positive = Field(60.0, description="how often training is saved")


class EmbedSettings(Settings):
    view_um: Positive = Field(16.0, description="edge of the view that is embedded")


class ClusterSettings(Settings):
    k: Annotated[int, Field(ge=1)] = Field(30, description="nearest neighbours")
    resolution: Positive = Field(1.0, description="of the modularity; higher gives more clusters")
    min_size: Annotated[int, Field(ge=1)] = Field(
        50, description='smaller clusters become "-1" (unknown)'
    )
    power: Positive = Field(
        1.0, description="of the Jaccard weights: 1 is PhenoGraph, 2 finds more small clusters"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where neighbours are searched; cuda = all pairs, with cuML (RAPIDS)"
    )


class UmapSettings(Settings):
    k: Annotated[int, Field(ge=2)] = Field(15, description="nearest neighbours")
    min_dist: Fraction = Field(0.1, description="least distance of two cells in the layout")
    epochs: Annotated[int, Field(ge=1)] = Field(200, description="rounds of the layout")
    max_cells: Annotated[int, Field(ge=2)] = Field(
        100_000, description="laid out together; further cells are placed among them"
    )


class ReportSettings(Settings):
    gallery_markers: Annotated[tuple[str, ...], Field(max_length=6)] = Field(
        (), description="up to 6 markers for galleries and tissue; empty = the most telling ones"
    )
    label: str | None = Field(
        None, description="column of cells.h5ad's obs to colour by, beside cluster and image"
    )


class SegmentSettings(Settings):
    method: Literal["watershed", "cellpose", "masks"] = Field(
        "watershed",
        description="for maskless segment: nuclei grown from the centres that detect found, "
        "Cellpose (extra), given masks",
    )
    expand_um: Annotated[float, Field(ge=0)] = Field(
        1.0, description="how far each mask is widened, without overlap; 0 for masks of whole cells"
    )
    files: str | None = Field(
        None, description="for masks: a path with {image}, as 'masks/{image}.tiff'"
    )
    cellpose_model: str | None = Field(
        None, description="for cellpose: weights file or model name; that of detect if left out"
    )


class AssignSettings(Settings):
    study: str | None = Field(
        None,
        description="study whose encoder, clusters and names these images get; maskless assign "
        "writes it",
    )
    expert: str | None = Field(
        None, description="whose names, where several people have named its clusters"
    )
    k: Annotated[int, Field(ge=1)] = Field(30, description="cells of that study that vote")
    unknown: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.005, description="share of its own cells that would be called unlike it; 0 = call none"
    )


class Config(Settings):
    """study.toml as a whole."""

    preset: Preset = Field("default", description="where values left out come from")
    seed: Annotated[int, Field(ge=0, lt=2**32)] = Field(0, description="fixes every random choice")
    device: str = Field("auto", description='where to train and embed: "auto", "cpu" or "cuda"')
    images: ImageSettings = ImageSettings()
    clean: CleanSettings = CleanSettings()
    detect: DetectSettings = DetectSettings()
    encoder: EncoderSettings = EncoderSettings()
    train: TrainSettings = TrainSettings()
    embed: EmbedSettings = EmbedSettings()
    cluster: ClusterSettings = ClusterSettings()
    umap: UmapSettings = UmapSettings()
    report: ReportSettings = ReportSettings()
    segment: SegmentSettings = SegmentSettings()
    assign: AssignSettings = AssignSettings()


# What a preset says differently from the defaults above. "paper" is Gutwein et al. 2024 as
# told in docs/method.md; the paper does not state the encoder's widths.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {
        "clean": {"hot_pixel_threshold": 50.0},
        "encoder": {"blocks": (1, 1), "stem_stride": 1, "pooling": "mean"},
        "train": {
            "steps": 5000,
            "cells_per_step": 768,
            "optimizer": "lars",
            "learning_rate": 4.6,
            "weight_decay": 1e-6,
            "gain": (0.5, 2.0),
            "surroundings_um": (0.0, 0.0),
            "jitter_um": 0.0,
            "marker_dropout": 0.0,
            "fusion": "trained",
        },
        "cluster": {"k": 8},
    },
    "small": {
        "encoder": {"width": 4},
        "train": {"steps": 150},
        "umap": {"epochs": 100},
    },
}


def resolve(content: Mapping[str, Any], source: str | Path = "study.toml") -> Config:
    """Settings of a study: its preset, overlaid with what its file says.

    Parameters
    ----------
    content
        Tables of study.toml, possibly with keys left out.
    source
        Named in the error.

    Raises
    ------
    SettingsError
        If a key is unknown or a value makes no sense; one line naming file, key and value.
    """
    preset = content.get("preset", "default")
    if preset not in PRESETS:
        raise SettingsError(f"{source}: preset is {preset!r}; expected one of {', '.join(PRESETS)}")
    merged: dict[str, Any] = {name: dict(table) for name, table in PRESETS[preset].items()}
    for key, value in content.items():
        if isinstance(value, Mapping):
            merged[key] = {**merged.get(key, {}), **value}
        else:
            merged[key] = value
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise SettingsError(
                f"{source}: there is no setting {key!r}. See the comments of a file written by "
                "`maskless init`"
            ) from None
        raise SettingsError(
            f"{source}: {key} is {first['input']!r}: {first['msg'].lower()}"
        ) from None


def load_config(path: Path) -> Config:
    """Read study.toml.

    Raises
    ------
    SettingsError
        If the file is missing, is not TOML, or holds an unknown key or a senseless value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SettingsError(
            f"{path}: no such file. Make a study with: maskless init STUDY IMAGES..."
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: this is not a readable TOML file ({error})") from error
    return resolve(content, path)


def to_toml(config: Config, notes: Mapping[str, str] | None = None) -> str:
    """study.toml with every setting, its value and what it means.

    Parameters
    ----------
    config
        What to write; ``load_config`` gives it back unchanged.
    notes
        Further comment lines for a table, by its name.
    """
    lines = [
        "# A study of maskless. Edit it, then: maskless run THIS_FOLDER",
        "# Only the stages that a change touches are computed again.",
        "",
    ]
    tables: list[tuple[str, Settings]] = []
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Settings):
            tables.append((name, value))
        else:
            lines.append(_setting(name, value, info.description))
    for name, table in tables:
        lines += ["", f"[{name}]"]
        lines += [f"# {line}" for line in (notes or {}).get(name, "").splitlines()]
        for key, info in type(table).model_fields.items():
            lines.append(_setting(key, getattr(table, key), info.description))
    return "\n".join(lines) + "\n"


def _setting(key: str, value: object, description: str | None) -> str:
    comment = f"  # {description}" if description else ""
    if value is None:
        return f"# {key} ={comment}"
    return f"{key} = {_toml_value(value)}{comment}"


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        escaped = "".join(
            f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else c for c in escaped
        )
        return f'"{escaped}"'
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return repr(value)
