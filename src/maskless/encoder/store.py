"""The encoder on disk: ``encoder.safetensors`` (weights) and ``encoder.json`` (what they mean).

The JSON file names the markers, the settings, the pixel size and the weights' SHA-256, so that
files of two different saves are told apart. Neither file can hold code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from maskless.encoder.model import Encoder
from maskless.errors import InputError, SettingsError
from maskless.storage import atomic_path, read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "maskless encoder"
VERSION = 2
WEIGHTS_NAME = "encoder.safetensors"
JSON_NAME = "encoder.json"

_AGAIN = "Save the encoder again, or take both files from one save"


def save_encoder(
    encoder: Encoder, folder: str | Path, extra: Mapping[str, Any] | None = None
) -> None:
    """Write the encoder's two files into a folder, each whole or not at all.

    Parameters
    ----------
    encoder
        Weights and activation calibration are saved as float32.
    folder
        Made if absent; other files in it are left alone.
    extra
        What else belongs to the encoder and is plain JSON (the scaling of the images, the seed).
        By default what `encoder.extra` holds.

    Raises
    ------
    SettingsError
        If `extra` is not plain JSON.
    StudyError
        If the folder cannot be written to.
    """
    from safetensors.torch import save

    state = {
        name: (value.float() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in encoder.state_dict().items()
    }
    weights = save(state)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "markers": list(encoder.markers),
        "pixel_um": encoder.pixel_um,
        "settings": encoder.settings.model_dump(mode="json"),
        "sha256": hashlib.sha256(weights).hexdigest(),
        "extra": dict(encoder.extra if extra is None else extra),
    }
    try:
        json.dumps(content, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"extra values saved with an encoder must be JSON: {error}") from error
    with atomic_path(Path(folder) / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(weights)
    write_json(Path(folder) / JSON_NAME, content)


def load_encoder(folder: str | Path, markers: Sequence[str] | None = None) -> Encoder:
    """Read an encoder, ready for use (``eval()``, on the CPU). Nothing from the files is executed.

    Parameters
    ----------
    folder
        Where `save_encoder` wrote.
    markers
        The panel to be used with it, if the encoder must fit one.

    Raises
    ------
    InputError
        If a file is missing, damaged, of another version or from another save, or the encoder was
        made for other markers.
    """
    json_path, weights_path = Path(folder) / JSON_NAME, Path(folder) / WEIGHTS_NAME
    content = read_json(json_path)
    encoder = _encoder_of(content, json_path)
    if markers is not None:
        check_markers(encoder, markers, json_path)
    state = _read_weights(weights_path, content.get("sha256"))
    expected = encoder.state_dict()
    differences = [
        f"{name} {_describe(expected.get(name))} expected, {_describe(state.get(name))} found"
        for name in sorted(expected.keys() | state.keys())
        if _describe(expected.get(name)) != _describe(state.get(name))
    ]
    if differences:
        raise InputError(
            "the weights do not fit the architecture that encoder.json tells",
            file=weights_path,
            found="; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else ""),
            do=_AGAIN,
        )
    broken = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise InputError(
            "the weights hold NaN or infinite values", file=weights_path, found=", ".join(broken)
        )
    encoder.load_state_dict(state)
    return encoder.eval()


def check_markers(encoder: Encoder, markers: Sequence[str], file: str | Path | None = None) -> None:
    """Raise an InputError that tells the difference unless the encoder is for these markers."""
    found = tuple(markers)
    if found == encoder.markers:
        return
    missing = [name for name in encoder.markers if name not in found]
    unknown = [name for name in found if name not in encoder.markers]
    parts = [
        f"{label} {', '.join(names)}"
        for label, names in (("missing", missing), ("unknown to the encoder", unknown))
        if names
    ]
    raise InputError(
        "the encoder was made for other markers",
        file=file,
        expected=", ".join(encoder.markers),
        found="; ".join(parts) or f"the same in another order: {', '.join(found)}",
        do="Use the panel that the encoder was trained with, or train a new encoder",
    )


def _encoder_of(content: Mapping[str, Any], path: Path) -> Encoder:
    from pydantic import ValidationError

    from maskless.config import EncoderSettings

    if content.get("format") != FORMAT:
        raise InputError("this file does not describe an encoder of maskless", file=path)
    if content.get("version") != VERSION:
        raise InputError(
            "this encoder was saved in another version of the format",
            file=path,
            expected=f"version {VERSION}",
            found=f"version {content.get('version')}",
            do="Use the version of maskless that saved it, or train again",
        )
    markers, pixel_um = content.get("markers"), content.get("pixel_um")
    extra = content.get("extra", {})
    if not isinstance(markers, list) or not all(isinstance(name, str) for name in markers):
        raise InputError("the encoder's markers are not a list of names", file=path, found=markers)
    if isinstance(pixel_um, bool) or not isinstance(pixel_um, int | float):
        raise InputError("the encoder's pixel size is no number", file=path, found=pixel_um)
    if not isinstance(extra, dict):
        raise InputError("the encoder's extra values are not an object", file=path, found=extra)
    try:
        settings = EncoderSettings.model_validate(content.get("settings"))
        encoder = Encoder(markers, settings, pixel_um=pixel_um)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("settings", *first["loc"]))
        raise InputError(
            f"the encoder's {place} cannot be used: {first['msg']}", file=path
        ) from error
    except SettingsError as error:
        raise InputError(f"the encoder cannot be built: {error}", file=path) from error
    encoder.extra = extra
    return encoder


def _read_weights(path: Path, sha256: object) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except OSError as error:
        raise InputError("this file cannot be read", file=path, found=error) from error
    try:
        state: dict[str, Tensor] = load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            "this is not a whole safetensors file", file=path, found=error, do=_AGAIN
        ) from error
    found = hashlib.sha256(weights).hexdigest()
    if found != sha256:
        raise InputError(
            "the weights are not those that encoder.json was written with",
            file=path,
            expected=f"SHA-256 {sha256}",
            found=found,
            do=_AGAIN,
        )
    return state


def _describe(tensor: Tensor | None) -> str:
    if tensor is None:
        return "none"
    return f"({', '.join(str(n) for n in tensor.shape)}) {str(tensor.dtype).removeprefix('torch.')}"
