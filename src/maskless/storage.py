"""Writing that is whole or absent: beside the target, flushed to disk, then renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskless.errors import InputError, StudyError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_TEMPORARY = ".part-"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `target` (a file or a folder) and rename it on success.

    Nothing is left behind on failure, and whatever stood at `target` stays until the rename.

    Raises
    ------
    StudyError
        If the place cannot be written to (read-only, disk full).
    """
    target = Path(target)
    temporary = target.with_name(f".{target.name}{_TEMPORARY}{uuid.uuid4().hex[:8]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        if target.is_dir() and not target.is_symlink():
            if not temporary.is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder of this name is there")
            # A folder cannot be renamed over another: the old one steps aside first.
            aside = target.with_name(f".{target.name}{_TEMPORARY}old-{uuid.uuid4().hex[:8]}")
            target.rename(aside)
            temporary.rename(target)
            shutil.rmtree(aside)
        else:
            temporary.replace(target)
        _flush(target.parent)
    except OSError as error:
        remove(temporary)
        raise StudyError(
            f"cannot write {target}: {error.strerror or error}. "
            "Check free space and permissions, then run again"
        ) from error
    except BaseException:
        remove(temporary)
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files that a killed process left in `folder` (not below it)."""
    for path in folder.glob(f".*{_TEMPORARY}*"):
        remove(path)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8 with Unix line ends."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically, keys in the given order; NaN and infinity are refused."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    InputError
        If the file is missing, is not JSON or is not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError("this is not a readable JSON file", file=path, found=error) from error
    if not isinstance(content, dict):
        raise InputError("this JSON file holds no object", file=path)
    return content


def _flush(path: Path) -> None:
    """Force a file, or all files of a folder, to disk."""
    if path.is_dir():
        for child in path.rglob("*"):
            if child.is_file():
                _flush_one(child)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and the rename is enough for files
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def mapped_array(shape: tuple[int, ...], folder: Path | None, name: str) -> NDArray[np.float32]:
    """Float32 zeros, in memory or in a file of their own that is mapped.

    Pages of a mapped file go to disk when memory is short, so an array may exceed memory.

    Parameters
    ----------
    shape
        Of the array.
    folder
        Where the file goes, made if need be; None = in memory.
    name
        Of the file, without suffix.

    Raises
    ------
    StudyError
        If the file cannot be made (read-only, disk full).
    """
    import numpy as np  # here, because the command line's help comes through this module

    if folder is None or 0 in shape:
        return np.zeros(shape, np.float32)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{name}.bin").open("wb") as file:
            # Claimed now: a disk that is full must say so here, not in the middle of the work.
            size = 4 * int(np.prod(shape))
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        return np.asarray(np.memmap(folder / f"{name}.bin", np.float32, "r+", shape=shape))
    except OSError as error:
        raise StudyError(f"{folder}: cannot write here ({error.strerror or error})") from error


def remove(path: Path) -> None:
    """Delete a file or a folder with what is in it; what cannot be deleted stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):  # the failure that brought us here is the one to report
            path.unlink(missing_ok=True)
