"""``.mcd`` files of imaging mass cytometry, with their ``.txt`` files as fall-back.

The layout is that which readimc 0.9.2 reads (XML in UTF-16 at the end of the file; 32-bit floats
X, Y, Z and one value a channel for each pixel). The XML is parsed without entities, and missing,
doubled and misplaced pixels are looked for, which readimc does not do.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from maskless.errors import InputError
from maskless.images.header import FileChannel, Header, Pixels, check_size, guarded
from maskless.images.imc_txt import place_pixels, txt_header
from maskless.images.mcd_about import acquisitions_about
from maskless.images.names import isotope
from maskless.images.safe_xml import children, parse_xml, texts

_START, _END = (text.encode("utf-16-le") for text in ("<MCDSchema", "</MCDSchema>"))
_CHANNEL = re.compile(r"([a-zA-Z]+)\(([0-9]+)\)")
_TXT_ID = re.compile(r"_([0-9]+)\.txt", re.IGNORECASE)


@dataclass(frozen=True)
class _Acquisition:
    number: int
    told: Mapping[str, str]
    channel_names: tuple[tuple[str, str], ...]  # name and label, with X, Y and Z
    about: Mapping[str, str]

    def whole(self, key: str, path: Path) -> int:
        try:
            return int(self.told[key])
        except (KeyError, ValueError):
            raise InputError(
                f"the XML of the .mcd does not tell {key} of acquisition {self.number}",
                file=path,
                found=self.told.get(key),
            ) from None


def txt_files_of(path: Path, candidates: Sequence[Path]) -> dict[int, Path]:
    """Those text files that belong to an ``.mcd``, by acquisition: ``NAME_..._ID.txt``."""
    found: dict[int, Path] = {}
    for file in sorted(candidates):
        match = _TXT_ID.search(file.name)
        if match and file.name.startswith(path.stem + "_"):
            number = int(match.group(1))
            if number in found:
                raise InputError(
                    f"two text files are of acquisition {number}",
                    file=path,
                    found=f"{found[number].name} and {file.name}",
                    do="Keep one of them",
                )
            found[number] = file
    return found


def mcd_headers(path: Path, txt_files: Mapping[int, Path]) -> list[Header | InputError]:
    """Headers of all acquisitions; an unreadable one without a text file is an InputError.

    Parameters
    ----------
    path
        The ``.mcd``.
    txt_files
        Text files by the number of their acquisition.

    Raises
    ------
    InputError
        If the file is unreadable as a whole and there is no text file.
    """
    try:
        with guarded(path, "the .mcd cannot be read"):
            acquisitions = _acquisitions(path)
    except InputError as error:
        if not txt_files:
            raise
        return [_only_txt(path, n, file, error.what) for n, file in sorted(txt_files.items())]
    headers: list[Header | InputError] = []
    for acquisition in acquisitions:
        name = f"{path.stem}_{acquisition.number:03d}"
        file = txt_files.get(acquisition.number)
        try:
            with guarded(path, "the acquisition cannot be read", name):
                header = _header(path, name, acquisition)
        except InputError as error:
            headers.append(
                error
                if file is None
                else _only_txt(path, acquisition.number, file, error.what, _shape(acquisition))
            )
            continue
        headers.append(header if file is None else _with_txt(header, file))
    known = {acquisition.number for acquisition in acquisitions}
    headers += [
        _only_txt(path, n, file, "the .mcd does not list the acquisition")
        for n, file in sorted(txt_files.items())
        if n not in known
    ]
    return headers


def _acquisitions(path: Path) -> list[_Acquisition]:
    root = parse_xml(mcd_xml(path), path, "XML of the .mcd")
    about = acquisitions_about(root)
    channels: dict[int, list[tuple[int, str, str]]] = {}
    for element in children(root, "AcquisitionChannel"):
        told = texts(element)
        channels.setdefault(int(told["AcquisitionID"]), []).append(
            (int(told["OrderNumber"]), told["ChannelName"], told.get("ChannelLabel", ""))
        )
    found: dict[int, _Acquisition] = {}
    for element in children(root, "Acquisition"):
        told = texts(element)
        number = int(told["ID"])
        if number in found:
            raise InputError(f"the .mcd lists acquisition {number} twice", file=path)
        ordered = sorted(channels.get(number, []))
        names = tuple((name, label) for _, name, label in ordered)
        found[number] = _Acquisition(number, told, names, about.get(number, {}))
    if not found:
        raise InputError("the .mcd holds no acquisition", file=path, do="Leave it out")
    return [found[number] for number in sorted(found)]


def mcd_xml(path: Path) -> str:
    """The XML of an ``.mcd``; the last one where there are several.

    Raises
    ------
    InputError
        If the file is missing, empty, or has none.
    """
    if not path.is_file():
        raise InputError("no such file", file=path)
    if path.stat().st_size == 0:
        raise InputError("the file is empty (0 bytes)", file=path)
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        # Files of the first version hold several; the last one is the most recent.
        start = raw.rfind(_START)
        end = raw.find(_END, start) if start >= 0 else -1
        if end < 0:
            raise InputError(
                "the .mcd has no XML at its end: it is cut, or not an .mcd",
                file=path,
                do="Put the .txt files of its acquisitions beside it, or copy the file again",
            )
        return raw[start : end + len(_END)].decode("utf-16-le")


def _shape(acquisition: _Acquisition) -> tuple[int, int] | None:
    try:
        shape_yx = int(acquisition.told["MaxY"]), int(acquisition.told["MaxX"])
    except (KeyError, ValueError):
        return None
    return shape_yx if min(shape_yx) > 0 else None


def _header(path: Path, name: str, acquisition: _Acquisition) -> Header:
    axes = tuple(channel for channel, _ in acquisition.channel_names[:3])
    if axes != ("X", "Y", "Z") or len(acquisition.channel_names) < 4:
        raise InputError(
            "the channels of the acquisition are wrong",
            file=path,
            image=name,
            expected="X, Y, Z and one or more channels",
            found=", ".join(channel for channel, _ in acquisition.channel_names) or "none",
        )
    channels = tuple(_channel(*pair, path, name) for pair in acquisition.channel_names[3:])
    start = acquisition.whole("DataStartOffset", path)
    end = acquisition.whole("DataEndOffset", path)
    value_bytes = acquisition.whole("ValueBytes", path)
    shape_yx = (acquisition.whole("MaxY", path), acquisition.whole("MaxX", path))
    check_size(shape_yx, path, name)
    if end == start:
        raise InputError("the image is empty", file=path, image=name, found="no pixels")
    pixel_format = acquisition.told.get("SegmentDataFormat", "Float")
    if value_bytes != 4 or pixel_format.casefold() not in ("", "float"):
        raise InputError(
            "the acquisition has an unknown kind of pixel",
            file=path,
            image=name,
            expected="Float of 4 bytes",
            found=f"{pixel_format} of {value_bytes} bytes",
        )
    n_values = 3 + len(channels)
    size = path.stat().st_size
    if not 0 <= start < end <= size or (end - start) % (4 * n_values):
        raise InputError(
            "the pixels of the acquisition are cut or misplaced",
            file=path,
            image=name,
            expected=f"whole pixels of {4 * n_values} bytes within {size} bytes",
            found=f"bytes {start} to {end}",
        )

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        with guarded(path, "the acquisition cannot be read", name):
            shape = ((end - start) // (4 * n_values), n_values)
            table = np.memmap(path, dtype="<f4", mode="r", offset=start, shape=shape)
            values_nc = np.asarray(table[:, [3 + i for i in indices]], dtype=np.float32)
            x_n, y_n = (np.array(table[:, i], dtype=np.float32) for i in (0, 1))
            return place_pixels(x_n, y_n, values_nc, shape_yx, path, name)

    step_um = _step_um(acquisition)
    return Header(name, path, (path,), channels, step_um, load, shape_yx, about=acquisition.about)


def _channel(channel: str, label: str, path: Path, image: str) -> FileChannel:
    match = _CHANNEL.fullmatch(channel)
    if match is None:
        raise InputError(
            "a channel of the acquisition has an unknown name",
            file=path,
            image=image,
            channel=channel,
            expected="METAL(MASS), as in Dy(161)",
        )
    metal = match.group(1) + match.group(2)
    metal = isotope(metal) or metal
    return FileChannel(" ".join(label.split()) or metal, metal)


def _step_um(acquisition: _Acquisition) -> float:
    """Distance between shots, which is the pixel size; 1 um where it is not told."""
    try:
        step = float(acquisition.told["AblationDistanceBetweenShotsX"])
    except (KeyError, ValueError):
        return 1.0
    return step if 0 < step < 100 else 1.0


def _only_txt(
    path: Path, number: int, file: Path, why: str, shape_yx: tuple[int, int] | None = None
) -> Header | InputError:
    """The text file in place of an unreadable acquisition."""
    try:
        header = txt_header(file, f"{path.stem}_{number:03d}", shape_yx)
    except InputError as error:
        return error
    told = f"Acquisition {number} of {path.name} is unreadable ({why}); {file.name} was read."
    return replace(header, files=(path, file), problems=(told,))


def _with_txt(header: Header, file: Path) -> Header:
    """An acquisition whose text file is compared with it, and read where it is unreadable."""
    compared: dict[tuple[int, ...], tuple[str, ...]] = {}  # text is slow: once in a process

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        try:
            pixels_cyx, problems = header.load(indices)
            if not np.isfinite(pixels_cyx).all():
                raise InputError(
                    "pixels are NaN or infinite", file=header.source, image=header.name
                )
        except InputError as error:
            try:
                pixels_cyx, problems = _load_txt(header, file, indices)
            except InputError:
                raise error from None
            told = f"The pixels in {header.source.name} are unreadable ({error.what}); "
            return pixels_cyx, (told + f"{file.name} was read.", *problems)
        key = tuple(indices)
        if key not in compared:
            compared[key] = _differences(pixels_cyx, header, file, indices)
        return pixels_cyx, (*problems, *compared[key])

    return replace(header, load=load, files=(*header.files, file))


def _differences(
    pixels_cyx: Pixels, header: Header, file: Path, indices: Sequence[int]
) -> tuple[str, ...]:
    """What the text file says otherwise than the ``.mcd``."""
    try:
        text_cyx, _ = _load_txt(header, file, indices)
    except InputError as error:
        return (f"{file.name} cannot be compared with the .mcd: {error.what}.",)
    # The text holds three decimals.
    same_yx = np.isclose(pixels_cyx, text_cyx, rtol=1e-5, atol=1e-3).all(axis=0)
    if same_yx.all():
        return ()
    count = int((~same_yx).sum())
    told = f"{count} of {same_yx.size} pixels differ between the .mcd and {file.name}; "
    return (told + "the .mcd was taken.",)


def _load_txt(header: Header, file: Path, indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
    other = txt_header(file, header.name, header.shape_yx)
    metals = [channel.metal for channel in other.channels]
    wanted = [header.channels[i].metal for i in indices]
    if any(metals.count(metal) != 1 for metal in wanted):
        raise InputError(
            "the text file has other channels than the .mcd",
            file=file,
            expected=", ".join(wanted),
            found=", ".join(metals),
        )
    return other.load([metals.index(metal) for metal in wanted])
