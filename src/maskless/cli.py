"""The command line: parse, call, print. No science.

Heavy packages are imported inside the commands, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from maskless.errors import MasklessError
from maskless.study import STAGES

app = typer.Typer(
    name="maskless",
    help="Cell types from multiplex tissue images without segmentation masks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Folder with a study.toml.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Leave out images that cannot be used, and say which.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Treat a recorded problem of an image as an error.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    if version:
        from maskless._version import __version__

        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="New folder to work in.")] = Path(
        "maskless-demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Make a small simulated study, run everything and say where the report is.

    Example: maskless demo my-first-study
    """
    from maskless.demo import run_demo

    with _shown(quiet):
        print(run_demo(folder))


@app.command()
def init(
    study: Annotated[Path, typer.Argument(metavar="STUDY", help="New folder for the study.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="Image files or folders.")
    ],
    panel: Annotated[
        Path | None, typer.Option(help="panel.csv: channel, name[, metal, kind, used].")
    ] = None,
    preset: Annotated[str, typer.Option(help="default, paper or small.")] = "default",
    um_per_pixel: Annotated[
        float | None, typer.Option(help="Pixel size in um, where the files do not say it.")
    ] = None,
    background: Annotated[
        list[str] | None, typer.Option(help="Channel to leave out of training; may be repeated.")
    ] = None,
    nuclear: Annotated[
        list[str] | None, typer.Option(help="Channel that shows nuclei; may be repeated.")
    ] = None,
    masks: Annotated[
        str | None, typer.Option(help="Take centres from masks: a path with {image}.")
    ] = None,
    centres: Annotated[
        str | None, typer.Option(help="Take centres from CSV tables: a path with {image}.")
    ] = None,
    keep_going: KeepGoing = False,
) -> None:
    """Look at the images and write STUDY/study.toml, with comments, to be edited.

    Example: maskless init spleen data/spleen_imc --panel data/spleen_imc/panel.csv
    """
    from maskless.initialise import init_study

    print(
        init_study(
            study,
            images,
            panel=panel,
            preset=preset,
            um_per_pixel=um_per_pixel,
            background=tuple(background or ()),
            nuclear=tuple(nuclear or ()),
            masks=masks,
            centres=centres,
            keep_going=keep_going,
        )
    )


@app.command()
def run(
    study: StudyFolder,
    first: Annotated[
        str | None, typer.Option("--from", help=f"Compute again from: {', '.join(STAGES)}.")
    ] = None,
    last: Annotated[str | None, typer.Option("--until", help="Stop after this stage.")] = None,
    keep_going: KeepGoing = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Bring the study up to date: every stage whose inputs or settings changed.

    Example: maskless run spleen --until cluster
    """
    from maskless.running import run_study

    for stage in (first, last):
        if stage is not None and stage not in STAGES:
            raise typer.BadParameter(f"{stage!r} is no stage; expected one of {', '.join(STAGES)}")
    with _shown(quiet):
        print(run_study(study, first=first, last=last, keep_going=keep_going, strict=strict))


def _add_stage_command(stage: str, what: str) -> None:
    def command(
        study: StudyFolder,
        keep_going: KeepGoing = False,
        strict: Strict = False,
        quiet: Quiet = False,
    ) -> None:
        from maskless.running import run_one_stage

        with _shown(quiet):
            print(run_one_stage(study, stage, keep_going=keep_going, strict=strict))

    command.__doc__ = f"{what}\n\nExample: maskless {stage} spleen"
    app.command(stage)(command)


for _stage, _what in {
    "read": "Stage 1: read every image once, check it against the panel, record problems.",
    "clean": "Stage 2: filter hot pixels, scale intensities over the cohort, store OME-Zarr.",
    "detect": "Stage 3: find the cell centres.",
    "train": "Stage 4: train the channel-separate encoder (goes on from its checkpoint).",
    "embed": "Stage 5: embed every cell.",
    "cluster": "Stage 6: PhenoGraph.",
    "umap": "Stage 7: lay the cells out in two dimensions.",
    "report": "Stage 8: draw the figures and write report.html.",
}.items():
    _add_stage_command(_stage, _what)


@app.command()
def spillover(
    spots: Annotated[
        list[Path],
        typer.Argument(
            metavar="SPOTS...", help="Spots of one metal each (images, folders), tables of beads."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE.csv", help="Where to write the matrix.")],
    metal: Annotated[
        list[str] | None, typer.Option(help="Metal that stained the beads; may be repeated.")
    ] = None,
    all_pairs: Annotated[
        bool, typer.Option("--all-pairs", help="Also pairs that have no physical reason to spill.")
    ] = False,
) -> None:
    """Estimate the spillover matrix from single stains, for [clean] spillover in study.toml.

    Example: maskless spillover spots/ --out matrix.csv
    """
    from maskless.images import describe_estimate, estimate_spillover, write_spillover

    estimate = estimate_spillover(spots, metal, "all" if all_pairs else "plausible")
    write_spillover(estimate.matrix, out)
    print(f"{describe_estimate(estimate)}\nthe matrix is in {out}")


@app.command()
def explain(
    study: StudyFolder,
    between: Annotated[
        tuple[str, str],
        typer.Option(metavar="A B", help="Two clusters; B may be 'rest' for all others."),
    ],
    by: Annotated[str, typer.Option(help="Column of obs that holds A and B.")] = "cluster",
) -> None:
    """Say which markers part two clusters, in shares that add up to 100 %.

    Example: maskless explain spleen --between 0 3
    """
    from maskless.difference import explain_clusters

    print(explain_clusters(study, between[0], between[1], by))


@app.command()
def segment(study: StudyFolder, quiet: Quiet = False) -> None:
    """Make the segmentation benchmark: masks, mean intensities, PhenoGraph ([segment]).

    Example: maskless segment spleen
    """
    from maskless.segmentation import segment_study

    with _shown(quiet):
        print(segment_study(study))


@app.command()
def compare(
    study: StudyFolder,
    reference: Annotated[
        str,
        typer.Option(
            metavar="FILE.csv",
            help="Labelled cells: x, y (pixels), image; or a path with {image}.",
        ),
    ],
    label: Annotated[str, typer.Option(help="Column of the labels.")],
    radius_um: Annotated[float, typer.Option(help="Largest distance of a pair, um.")] = 4.0,
    without: Annotated[
        list[str] | None, typer.Option(help="Label to leave out; may be repeated.")
    ] = None,
    masks: Annotated[
        str | None,
        typer.Option(help="Masks of the reference, a path with {image}: adds means over masks."),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another study of the same cells, to compare with; may be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of clusters and splits.")] = 3,
    trainings: Annotated[
        int, typer.Option(min=1, help="Encoders trained with different seeds, the study's among.")
    ] = 1,
    paper: Annotated[
        bool, typer.Option("--paper", help="Train the paper's preset too, as a control (slow).")
    ] = False,
    paper_steps: Annotated[
        int | None, typer.Option(min=1, help="Its steps; as many as the study's if left out.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Compare with reference labels: confusion, rediscovery, scores beside every control.

    Example: maskless compare spleen --reference 'data/{image}/cells.csv' --label cell_type
    """
    from maskless.compare import compare_study

    with _shown(quiet):
        print(
            compare_study(
                study,
                reference,
                label,
                radius_um=radius_um,
                without=tuple(without or ()),
                masks=masks,
                beside=tuple(beside or ()),
                seeds=seeds,
                trainings=trainings,
                paper=paper,
                paper_steps=paper_steps,
            )
        )


@app.command()
def assign(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Folder of the study with the names.")
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGES...", help="New image files or folders.")
    ],
    to: Annotated[
        Path, typer.Option("--to", metavar="STUDY2", help="New folder for the new images.")
    ],
    expert: Annotated[
        str | None, typer.Option(help="Whose names, where several people gave some.")
    ] = None,
    um_per_pixel: Annotated[
        float | None, typer.Option(help="Pixel size in um, where the files do not say it.")
    ] = None,
    keep_going: KeepGoing = False,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Give new images the names of a study, by its trained encoder; check for batch shift.

    Example: maskless assign spleen data/new_patient --to new_patient
    """
    from maskless.assignment.on_disk import assign_study

    with _shown(quiet):
        print(
            assign_study(
                study,
                images,
                to,
                expert=expert,
                um_per_pixel=um_per_pixel,
                keep_going=keep_going,
                strict=strict,
            )
        )


@app.command()
def subcluster(
    study: StudyFolder,
    of: Annotated[
        str, typer.Option("--of", metavar="NAME", help="A phenotype, or a cluster's number.")
    ],
    markers: Annotated[
        list[str] | None,
        typer.Option(help="Compare cells by this marker only; may be repeated."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Column of obs that holds NAME, where several do.")
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Nearest neighbours.")] = None,
    resolution: Annotated[float | None, typer.Option(help="Higher gives more parts.")] = None,
    min_size: Annotated[int | None, typer.Option(min=1, help="Smaller parts are unknown.")] = None,
    quiet: Quiet = False,
) -> None:
    """Divide one phenotype or cluster with PhenoGraph: obs["subcluster"], figures, report.

    Example: maskless subcluster spleen --of "T cell" --markers CD4 --markers CD8a
    """
    from maskless.subclusters import subcluster_study

    with _shown(quiet):
        print(
            subcluster_study(
                study,
                of,
                markers=tuple(m.strip() for item in markers or () for m in item.split(",")),
                by=by,
                k=k,
                resolution=resolution,
                min_size=min_size,
            )
        )


@app.command("export")
def export_cells(
    study: StudyFolder,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New file or folder.")],
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help="csv, fcs or spatialdata.")],
    quiet: Quiet = False,
) -> None:
    """Write the cells for other programs: CSV, FCS (one file an image), or SpatialData.

    Example: maskless export spleen --to csv spleen.csv
    """
    from maskless.exporting import export_study

    with _shown(quiet):
        print(export_study(study, to, out))


@app.command()
def annotate(
    study: StudyFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any free port.")] = 0,
    host: Annotated[
        str, typer.Option(help="Name or address to listen on; anything but loopback is warned of.")
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")
    ] = True,
) -> None:
    """Open the page on which experts name clusters, on this machine only.

    Example: maskless annotate spleen
    """
    from maskless.annotate.serve import annotate_study

    annotate_study(study, port, host, browser)


@app.command()
def info(study: StudyFolder) -> None:
    """Say what is there, what is stale, and how good the staining is.

    Example: maskless info spleen
    """
    from maskless.info import describe

    print(describe(study))


@app.command()
def simulate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="New folder for images and truth.")],
    preset: Annotated[str, typer.Option(help="demo or bone_marrow.")] = "demo",
    images: Annotated[int | None, typer.Option(min=1, help="How many images.")] = None,
    size_px: Annotated[int | None, typer.Option(min=32, help="Edge of an image, pixels.")] = None,
    density: Annotated[str | None, typer.Option(help="sparse, medium, spleen or dense.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every random choice.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Make images of tissue whose truth is known, to try methods on.

    Example: maskless simulate tissue --preset demo
    """
    from maskless.simulate import simulate as make

    with _shown(quiet):
        made = make(out, preset, images=images, size_px=size_px, density=density, seed=seed)
        print(f"simulated images and their truth are in {made}")


@contextmanager
def _shown(quiet: bool) -> Iterator[None]:
    """Show progress, and say how to go on when a person stops the work."""
    from maskless.progress import set_mode

    set_mode("quiet" if quiet else "auto")
    try:
        yield
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit 0 done, 1 failed with one clear line, 2 wrong usage."""
    sys.exit(_guarded(lambda: app(args=arguments, standalone_mode=True)))


def _guarded(call: Callable[[], Any]) -> int:
    if os.environ.get("MASKLESS_DEBUG"):
        call()
        return 0
    try:
        call()
    except MasklessError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except MemoryError:
        print("error: out of memory. Try --preset small or smaller images", file=sys.stderr)
        return 1
    except Exception as error:
        print(
            f"error: {type(error).__name__}: {' '.join(str(error).split())}. This is a fault of "
            "maskless: please report it with what MASKLESS_DEBUG=1 prints",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    main()
