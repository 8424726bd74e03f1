"""Agreement of a study with reference labels, beside every control, on the same cells.

Claim: the embedding of maskless agrees with the reference at least as well as what needs no
encoder (means over a disc, over rings, over the reference's own masks, raw pixels) and better
than an encoder with random weights.

    python benchmarks/agreement.py STUDY --reference 'spleen_imc/{image}' --label cell_type

The cells of the study are matched one to one with those of the reference (within --radius-um);
each representation of the matched cells is then clustered with the study's own PhenoGraph
settings and read by a linear and a nearest-neighbour probe, split by image. Mean and standard
deviation over the seeds. The reference's masks are used for the control "mask mean" only.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from maskless.analysis import phenograph
from maskless.analysis.agreement import best_match_f1, cluster_scores, confusion
from maskless.analysis.matching import match_centres
from maskless.analysis.probes import knn_probe, linear_probe
from maskless.cells.atlas import Atlas
from maskless.cells.intensity import disc_means, ring_means
from maskless.cells.views import gather_views, view_reach_um, view_size_px
from maskless.cells_file import read_cells
from maskless.encoder import Encoder, load_encoder
from maskless.errors import InputError, MasklessError
from maskless.images import ImageSet, Panel, open_image_zarr
from maskless.images.image import Channel, Image
from maskless.study import Study

DISC_UM = 4.0
RINGS_UM = (0.0, 2.0, 4.0, 6.0)
RAW_UM = 8.0
COLUMNS = (
    ("ari", "ARI"),
    ("ami", "AMI"),
    ("macro_f1", "best-match F1"),
    ("held_out_macro_f1", "held-out F1"),
    ("clusters", "clusters"),
    ("linear_balanced_accuracy", "linear bal.acc"),
    ("linear_macro_f1", "linear F1"),
    ("knn_balanced_accuracy", "kNN bal.acc"),
    ("knn_macro_f1", "kNN F1"),
)


@dataclass(frozen=True)
class Matched:
    """Cells of the study that have a label.

    Attributes
    ----------
    rows
        In cells.h5ad.
    image
        Name of the image of each.
    label
        The reference's label.
    mask_id
        The reference's cell, for its mask.
    counts
        Cells of the study, of the reference, and pairs, in the images of the reference.
    """

    rows: NDArray[np.intp]
    image: NDArray[np.str_]
    label: NDArray[np.str_]
    mask_id: NDArray[np.intp]
    counts: dict[str, int]


def read_reference(path: Path, label: str) -> dict[str, NDArray]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in ("cell_id", "x", "y", label) if not rows or name not in rows[0]]
    if missing:
        raise InputError("the reference lacks columns", file=path, expected=", ".join(missing))
    return {
        "xy": np.array([[float(r["x"]), float(r["y"])] for r in rows]),
        "label": np.array([r[label] for r in rows]),
        "id": np.array([int(float(r["cell_id"])) for r in rows]),
    }


def match(
    study: Study,
    cells,
    folder: Callable[[str], Path],
    table: str,
    label: str,
    without: list[str],
    radius_um: float,
) -> Matched:
    of_image = cells.obs["image"].astype(str).to_numpy()
    xy = cells.obs[["x", "y"]].to_numpy(dtype=np.float64)
    parts = []
    counts = {"study": 0, "reference": 0, "matched": 0}
    for name in cells.obs["image"].cat.categories:
        path = folder(name) / table
        if not path.is_file():
            continue
        truth = read_reference(path, label)
        keep = ~np.isin(truth["label"], without)
        truth = {key: value[keep] for key, value in truth.items()}
        rows = np.flatnonzero(of_image == name)
        radius_px = radius_um / open_image_zarr(study.image_file(name), [0]).um_per_pixel
        pairs = match_centres(xy[rows], truth["xy"], radius_px)
        parts.append((rows[pairs.a], of_image[rows[pairs.a]], truth["label"][pairs.b],
                      truth["id"][pairs.b]))  # fmt: skip
        counts["study"] += len(rows)
        counts["reference"] += len(truth["id"])
        counts["matched"] += len(pairs)
    if not parts:
        raise InputError("no image of the study has a reference", expected=folder("{image}"))
    return Matched(*(np.concatenate(column) for column in zip(*parts, strict=True)), counts)


def image_set(study: Study, cells, names: list[str]) -> ImageSet:
    def loader(name: str) -> Callable[[], Image]:
        return lambda: open_image_zarr(study.image_file(name))

    kinds = cells.var["kind"].astype(str) if "kind" in cells.var else ["marker"] * cells.n_vars
    channels = zip(cells.var_names, kinds, cells.var["used"], strict=True)
    panel = Panel(tuple(Channel(str(n), kind=k, used=bool(u)) for n, k, u in channels))
    return ImageSet(panel, {name: loader(name) for name in names})


def mask_means(image: Image, mask_yx: NDArray, ids: NDArray[np.intp]) -> NDArray[np.float32]:
    size = np.maximum(np.bincount(mask_yx.ravel()), 1)
    sums = [np.bincount(mask_yx.ravel(), plane.ravel()) / size for plane in image.pixels_cyx]
    return np.stack(sums, axis=1)[ids].astype(np.float32)


def raw_pixels(image: Image, centres_yx: NDArray) -> NDArray[np.float32]:
    """A window of 8 um in 4 x 4 parts of each cell, flattened."""
    part = max(round(RAW_UM / 4 / image.um_per_pixel), 1)
    start = np.rint(centres_yx).astype(int)  # of the window, in the padded image
    padded = np.pad(image.pixels_cyx, ((0, 0), (2 * part,) * 2, (2 * part,) * 2), mode="reflect")
    windows = np.stack([padded[:, y : y + 4 * part, x : x + 4 * part] for y, x in start])
    parts = windows.reshape(len(start), len(padded), 4, part, 4, part).mean(axis=(3, 5))
    return parts.reshape(len(start), -1).astype(np.float32)


def controls(
    study: Study,
    cells,
    matched: Matched,
    folder: Callable[[str], Path],
    mask: str,
    encoder: Encoder,
) -> dict[str, NDArray[np.float32]]:
    names = list(dict.fromkeys(matched.image.tolist()))
    images = image_set(study, cells, names)
    used = images.panel.used
    yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[matched.rows]
    found: dict[str, list[NDArray]] = {}
    with_masks = all((folder(name) / mask).is_file() for name in names)
    for name in names:
        image, here = images[name], matched.image == name
        image = Image(
            name, np.asarray(image.pixels_cyx)[used], images.panel.markers, image.um_per_pixel
        )
        um = image.um_per_pixel
        rings = ring_means(image.pixels_cyx, yx[here], [edge / um for edge in RINGS_UM])
        disc = disc_means(image.pixels_cyx, yx[here], DISC_UM / um)
        planes = {
            "disc mean": disc,
            "disc + ring means": np.concatenate([disc, rings.reshape(len(disc), -1)], axis=1),
            "raw pixels": raw_pixels(image, yx[here]),
        }
        if with_masks:
            import tifffile

            ids = matched.mask_id[here]
            planes["mask mean"] = mask_means(image, tifffile.imread(folder(name) / mask), ids)
        for key, value in planes.items():
            found.setdefault(key, []).append(value)
    made = {key: np.concatenate(parts) for key, parts in found.items()}
    random = Encoder(encoder.markers, encoder.settings, encoder.pixel_um, seed=2**31 - 1)
    features_nck, embedding_ne = [], []
    for name in names:
        features, embedding = encode(random, images, name, yx[matched.image == name], study)
        features_nck.append(features)
        embedding_ne.append(embedding)
    made["random encoder: embedding"] = np.concatenate(embedding_ne)
    made["random encoder: features"] = np.concatenate(features_nck)
    return made


def encode(
    encoder: Encoder, images: ImageSet, name: str, centres_yx: NDArray, study: Study
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (n, markers x K) and embeddings (n, E), without calibrated activations."""
    view_um = study.config.embed.view_um
    size_px = view_size_px(view_um, encoder.pixel_um)
    reach_um = view_reach_um([size_px * encoder.pixel_um])
    atlas = Atlas.of_image(images[name], images.panel, encoder.pixel_um, reach_um, encoder.markers)
    features, embedding = [], []
    with torch.inference_mode():
        for start in range(0, len(centres_yx), 512):
            part = centres_yx[start : start + 512]
            views = gather_views(atlas, np.zeros(len(part), np.int64), part, size_px)
            features_bck = encoder.features(torch.from_numpy(views))
            features.append(features_bck.flatten(1).numpy())
            embedding.append(encoder.embed_of(features_bck).numpy())
    return np.concatenate(features), np.concatenate(embedding)


def score(
    points_nd: NDArray, matched: Matched, study: Study, seeds: list[int], probes: bool
) -> dict[str, float]:
    settings = study.config.cluster
    by_seed = []
    for seed in seeds:
        clusters = phenograph(
            points_nd, settings.k, settings.resolution, settings.min_size, seed=seed
        )
        by_seed.append(cluster_scores(clusters, matched.label, matched.image, [seed]))
    result = {}
    for key in by_seed[0]:
        if not key.endswith("_sd"):
            result[key] = float(np.mean([s[key] for s in by_seed]))
            result[f"{key}_sd"] = float(np.std([s[key] for s in by_seed]))
    if probes and len(np.unique(matched.image)) > 1:
        for name, probe in (("linear", linear_probe), ("knn", knn_probe)):
            summary = probe(points_nd, matched.label, matched.image, seeds).summary()
            result.update({f"{name}_{key}": value for key, value in summary.items()})
    return result


def show(results: dict[str, dict[str, float]]) -> None:
    width = max(len(name) for name in results) + 2
    print("".ljust(width) + "".join(title.rjust(16) for _, title in COLUMNS))
    for name, scores in results.items():
        cells = []
        for key, _ in COLUMNS:
            if key not in scores:
                cells.append("-")
            elif key == "clusters":
                cells.append(f"{scores[key]:.0f}")
            else:
                spread = scores.get(f"{key}_sd")
                cells.append(f"{scores[key]:.3f}" + (f" ± {spread:.3f}" if spread else ""))
        print(name.ljust(width) + "".join(text.rjust(16) for text in cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--reference", required=True, help="folder of an image, with {image}")
    parser.add_argument("--label", default="cell_type", help="column of the labels")
    parser.add_argument("--table", default="cells_labelled.csv", help="file in that folder")
    parser.add_argument("--mask", default="mask_labelled.tif", help="file in that folder")
    parser.add_argument("--without", action="append", default=[], help="label to leave out")
    parser.add_argument("--radius-um", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--no-probes", action="store_true", help="clusterings only")
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    given = parser.parse_args()

    def folder(name: str) -> Path:
        return Path(given.reference.replace("{image}", name))

    study = Study.open(given.study)
    cells = read_cells(study.cells_file)
    matched = match(study, cells, folder, given.table, given.label, given.without, given.radius_um)
    print("matched {matched} of {study} cells and {reference} labels".format(**matched.counts))
    used = np.flatnonzero(cells.var["used"].to_numpy(dtype=bool))
    representations = {
        "maskless: embedding": np.asarray(cells.obsm["X_embedding"])[matched.rows],
        "maskless: features": np.asarray(cells.obsm["X_features"])[matched.rows],
        "maskless: activations": np.asarray(cells.X)[matched.rows][:, used],
    }
    encoder = load_encoder(study.encoder_folder)
    representations.update(controls(study, cells, matched, folder, given.mask, encoder))
    results = {}
    seeds = list(range(given.seeds))
    if "cluster" in cells.obs:
        own = cells.obs["cluster"].astype(str).to_numpy()[matched.rows]
        results["maskless: the study's clusters"] = cluster_scores(
            own, matched.label, matched.image, seeds
        )
    for name, points in representations.items():
        print(f"... {name} {points.shape}", file=sys.stderr)
        results[name] = score(points, matched, study, seeds, not given.no_probes)
    show(results)
    record = {"counts": matched.counts, "seeds": seeds, "scores": results}
    if "cluster" in cells.obs:
        best = best_match_f1(own, matched.label)
        named = np.array([best.names.get(cluster, "unknown") for cluster in own])
        record["rediscovery"] = confusion(named, matched.label).rediscovery()
        record["f1_by_class"] = best.scores.f1
        print("\nrediscovered by the study's clusters, named by majority:")
        for name, share in record["rediscovery"].items():
            print(f"  {name}: {share:.1%}")
    if given.json:
        given.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MasklessError as error:
        sys.exit(f"error: {error}")
