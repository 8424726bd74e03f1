"""report.html: one page that tells a person what was found, and holds all it needs in itself.

Every text from outside is escaped; styles stand in one block whose hash the page's
Content-Security-Policy names, pictures are embedded, and nothing else may be loaded or run.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from maskless.errors import InputError
from maskless.report.groups import Groups, describe_groups, groups_of, used_markers
from maskless.report.quality_section import marker_rows, suspicions_of
from maskless.storage import write_text

if TYPE_CHECKING:
    from anndata import AnnData

_WIDEST_PX = 1500
_TALLEST_PX = 3200
_PHOTO_BYTES = 250_000

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 2rem 4rem; max-width: 74rem; background: #fff;
  color: #222226; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-bottom: 1px solid #d9d9de;
  padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
.summary { font-size: 1.1rem; max-width: 48rem; }
.note { background: #fff7df; border-left: 4px solid #e69f00; padding: .4rem .8rem;
  margin: .5rem 0; max-width: 60rem; overflow-wrap: anywhere; }
nav { margin: .8rem 0; font-size: .95rem; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
a { color: #0b4f8a; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; padding: .22rem .9rem .22rem .2rem; vertical-align: top;
  border-bottom: 1px solid #e6e6ea; }
th { font-weight: 600; border-bottom: 2px solid #b9b9c0; }
td { overflow-wrap: anywhere; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: 2px;
  margin-right: .45em; vertical-align: -.05em; }
.name { white-space: nowrap; }
figure { margin: 0 0 2.2rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { max-width: 48rem; margin: 0 0 .5rem; color: #3c3c42; }
.files { font-size: .85rem; color: #66666e; }
details { margin: .6rem 0; }
summary { cursor: pointer; }
pre { background: #f5f5f7; padding: .8rem; overflow-x: auto; font-size: .82rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { padding: 1rem; } }
@media print { body { max-width: none; padding: 0; font-size: 11pt; } nav { display: none; }
  h2 { break-after: avoid; } tr { break-inside: avoid; }
  figure img { max-height: 22cm; width: auto; } a { color: inherit; } }
"""


def write_report(
    target: Path,
    study_name: str,
    cells: AnnData,
    figures: Mapping[str, tuple[str, str, Path]],
    stages: Sequence[Mapping[str, Any]] = (),
    problems: Mapping[str, Sequence[str]] | None = None,
    config_text: str = "",
    notes: Sequence[str] = (),
) -> None:
    """Write the report of a study as one self-contained HTML file, atomically.

    Parameters
    ----------
    target
        The file, ``report.html``.
    study_name
        For the heading.
    cells
        As in cells.h5ad, at any stage.
    figures
        Name to (title, caption, PNG), as :func:`maskless.report.draw_all` returns them.
    stages
        Records of run.jsonl: ``stage``, ``seconds``, ``peak_mib``.
    problems
        Image name to plain sentences; images without cells are listed too.
    config_text
        study.toml as it was run.
    notes
        Sentences shown at the top.

    Raises
    ------
    InputError
        A figure's PNG cannot be read.
    StudyError
        `target` cannot be written.
    """
    problems = problems or {}
    groups = groups_of(cells, "cluster") if "cluster" in cells.obs else None
    css = _CSS + _swatch_rules(groups)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    sections = [
        ("figures", "Figures", _figures(figures, target.parent)),
        ("images", "Images", _images(cells, problems)),
        ("quality", "Quality of the staining", _quality(cells)),
        ("run", "How it was run", _stages(stages) + _settings(config_text)),
    ]
    if groups is not None and groups.names:
        sections.insert(0, ("clusters", "Clusters", _clusters(cells, groups)))
    sections = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{key}">{title}</a>' for key, title, _ in sections)
    body = "\n".join(
        f'<section id="{key}"><h2>{title}</h2>\n{html}\n</section>' for key, title, html in sections
    )
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(study_name)} - maskless report</title>
<style>{css}</style>
</head>
<body>
<h1>{_name(study_name)}</h1>
{_summary(cells, groups, problems)}
{"".join(f'<p class="note">{_text(note)}</p>' for note in notes)}
<nav>{links}</nav>
{body}
</body>
</html>
"""
    write_text(target, page)


def _text(value: object) -> str:
    """A text for HTML: escaped, without characters that HTML does not allow."""
    text = "".join(
        c if c in "\n\t" or (ord(c) >= 32 and not 0xD800 <= ord(c) <= 0xDFFF) else "\ufffd"
        for c in str(value)
    )
    return escape(text, quote=True)


def _name(value: object) -> str:
    """A name from outside; bdi keeps right-to-left names from turning their neighbours round."""
    text = str(value)
    return f"<bdi>{_text(text if len(text) <= 300 else text[:300] + '…')}</bdi>"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _summary(cells: AnnData, groups: Groups | None, problems: Mapping[str, Sequence[str]]) -> str:
    names = _image_counts(cells, problems)
    try:
        n_markers = len(used_markers(cells))
    except InputError:
        n_markers = 0
    sentences = [
        f"{_count(cells.n_obs, 'cell')} in {_count(len(names), 'image')}, "
        f"{_count(n_markers, 'marker')}."
    ]
    if groups is None:
        sentences.append("They have not been clustered yet.")
    elif cells.n_obs:
        unknown = int(groups.counts_g[groups.unknown_g].sum())
        known = int((~groups.unknown_g).sum())
        sentences.append(f"They fall into {_count(known, 'cluster')}.")
        if unknown:
            sentences.append(
                f"{_count(unknown, 'cell')} ({unknown / cells.n_obs:.1%}) "
                f"{'is' if unknown == 1 else 'are'} in no cluster (“unknown”)."
            )
        else:
            sentences.append("No cell is left unknown.")
        sentences.append(_naming(cells))
    troubled = sum(bool(found) for found in problems.values())
    if troubled:
        sentences.append(
            f"{_count(troubled, 'image')} {'has' if troubled == 1 else 'have'} "
            'problems that are <a href="#images">listed below</a>.'
        )
    return f'<p class="summary">{" ".join(filter(None, sentences))}</p>'


def _naming(cells: AnnData) -> str:
    if "phenotype" not in cells.obs:
        return "No cluster has been given a name yet."
    phenotypes = groups_of(cells, "phenotype")
    named = int(phenotypes.counts_g[~phenotypes.unknown_g].sum())
    if not named:
        return "No cluster has been given a name yet."
    kinds = int((~phenotypes.unknown_g).sum())
    return f"{named / cells.n_obs:.0%} of the cells carry one of {_count(kinds, 'name')}."


def _swatch_rules(groups: Groups | None) -> str:
    if groups is None:
        return ""
    return "".join(f".s{i} {{ background: {c}; }}\n" for i, c in enumerate(groups.colors))


def _clusters(cells: AnnData, groups: Groups) -> str:
    try:
        words = describe_groups(cells)
    except InputError:
        words = {}
    phenotypes = _main_phenotypes(cells, groups)
    rows = []
    for i, (name, label, count) in enumerate(
        zip(groups.names, groups.labels, groups.counts_g, strict=True)
    ):
        cell = f'<span class="swatch s{i}"></span>{_name(label)}'
        rows.append(
            [
                cell,
                *([_name(phenotypes[i])] if phenotypes else []),
                f"{count:,}",
                f"{count / cells.n_obs:.1%}",
                _text(words.get(name, "")),
            ]
        )
    heads = ["cluster", *(["name"] if phenotypes else []), "cells", "share", "what stands out"]
    numbers = {heads.index("cells"), heads.index("share")}
    return (
        "<p>High, very high and low compare a cluster's mean activation with all other cells "
        "(0.75 and 1.75 standard deviations above, 0.75 below).</p>" + _table(heads, rows, numbers)
    )


def _main_phenotypes(cells: AnnData, groups: Groups) -> list[str]:
    """The commonest phenotype of each cluster; empty where nobody gave names."""
    if "phenotype" not in cells.obs:
        return []
    phenotypes = groups_of(cells, "phenotype")
    if phenotypes.unknown_g.all():
        return []
    size = len(phenotypes.names)
    table = np.bincount(
        groups.codes_n * size + phenotypes.codes_n, minlength=len(groups.names) * size
    ).reshape(-1, size)
    return [phenotypes.labels[int(row.argmax())] for row in table]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: set[int]) -> str:
    """A table of cells that are HTML already."""

    def line(cells: Sequence[str], tag: str) -> str:
        parts = [
            f'<{tag} class="n">{cell}</{tag}>' if i in numbers else f"<{tag}>{cell}</{tag}>"
            for i, cell in enumerate(cells)
        ]
        return f"<tr>{''.join(parts)}</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return f"<table>\n<thead>{line(heads, 'th')}</thead>\n<tbody>\n{body}\n</tbody></table>"


def _figures(figures: Mapping[str, tuple[str, str, Path]], folder: Path) -> str:
    parts = []
    for key, (title, caption, png) in figures.items():
        data, width, height = _small_png(Path(png))
        parts.append(
            f'<figure id="figure-{quote(key, safe="")}"><h3>{_text(title)}</h3>'
            f"<figcaption>{_text(caption)}</figcaption>"
            f'<img alt="{_text(title)}" width="{width}" height="{height}" '
            f'src="data:image/png;base64,{data}">{_links(Path(png), folder)}</figure>'
        )
    return "\n".join(parts)


def _links(png: Path, folder: Path) -> str:
    """Where the full picture lies, if it is beside or below the report."""
    relative = os.path.relpath(png, folder).replace(os.sep, "/")
    if relative.startswith(".."):
        return ""
    links = [
        f'<a href="{_text(quote(path))}">{_text(path)}</a>'
        for path in (relative, relative.removesuffix(".png") + ".svg")
        if (folder / path).is_file()
    ]
    return f'<div class="files">full size: {" · ".join(links)}</div>' if links else ""


def _small_png(path: Path) -> tuple[str, int, int]:
    """Base64 of a picture for the page, with the size it is shown at; large ones in 256 colours."""
    from PIL import Image as Picture

    try:
        with Picture.open(path) as opened:
            picture = opened.convert("RGB")
    except OSError as error:
        raise InputError("this figure cannot be read", file=path, found=error) from error
    shrink = min(1.0, _WIDEST_PX / picture.width, _TALLEST_PX / picture.height)
    if shrink < 1:
        size = (round(picture.width * shrink), max(1, round(picture.height * shrink)))
        picture = picture.resize(size, Picture.Resampling.LANCZOS)
    if path.stat().st_size > _PHOTO_BYTES:
        picture = picture.quantize(256, method=Picture.Quantize.MEDIANCUT)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    # Drawn at 160 dots an inch, shown at 110 or less.
    shown = min(1.0, 0.69 / shrink)
    return (
        base64.b64encode(buffer.getvalue()).decode(),
        round(picture.width * shown),
        round(picture.height * shown),
    )


def _image_counts(cells: AnnData, problems: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Cells of every image that is known of, in order; images that only have problems last."""
    counts: dict[str, int] = {}
    if "image" in cells.obs:
        values = cells.obs["image"]
        names = values.cat.categories if hasattr(values, "cat") else []
        counts = {str(name): 0 for name in names}
        for name, count in values.astype(str).value_counts(sort=False).items():
            counts[str(name)] = int(count)
    return {**counts, **{name: 0 for name in problems if name not in counts}}


def _images(cells: AnnData, problems: Mapping[str, Sequence[str]]) -> str:
    rows = [
        [_name(name), f"{count:,}", "<br>".join(map(_text, problems.get(name, ()))) or "none"]
        for name, count in _image_counts(cells, problems).items()
    ]
    return _table(["image", "cells", "problems"], rows, {1}) if rows else ""


def _quality(cells: AnnData) -> str:
    rows = [[_name(row[0]), *row[1:3], _name(row[3]), *row[4:]] for row in marker_rows(cells)]
    if not rows:
        return ""
    told = suspicions_of(cells)
    heads = ["marker", "signal-to-noise", "lowest", "in image", "positive area", "most saturated"]
    return (
        "<p>Measured on raw counts. Signal-to-noise: variance of the structure over that of the "
        "noise, middle image; 0 is noise only. Positive area: lowest to highest image. The figure "
        '<a href="#figure-quality">Quality of the images</a> shows every image.</p>'
        + "".join(f'<p class="note">{_text(sentence)}</p>' for sentence in told)
        + ("" if told else "<p>Nothing is suspicious.</p>")
        + _table(heads, rows, {1, 2, 4, 5})
    )


def _stages(stages: Sequence[Mapping[str, Any]]) -> str:
    if not stages:
        return ""
    rows = [
        [
            _text(record.get("stage", "?")),
            _number(record.get("seconds"), "{:,.1f}"),
            _number(record.get("peak_mib"), "{:,.0f}"),
        ]
        for record in stages
    ]
    return _table(["stage", "seconds", "peak memory, MiB"], rows, {1, 2})


def _number(value: Any, form: str) -> str:
    try:
        return form.format(float(value))
    except (TypeError, ValueError):
        return "?"


def _settings(config_text: str) -> str:
    if not config_text:
        return ""
    return (
        "<details><summary>All settings (study.toml)</summary>"
        f"<pre>{_text(config_text)}</pre></details>"
    )
