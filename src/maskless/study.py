"""The study on disk: where things lie, what is stale, who is working on it.

Every output carries the fingerprint of what it was made from (in its own metadata, so that the
two cannot part): settings, seed, the version of the stage and the fingerprints of the stages
before. A stage is fresh if the fingerprint in its output is the one expected now; run.jsonl is
only a log.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from maskless._version import __version__
from maskless.config import Config, load_config, to_toml
from maskless.errors import StudyError
from maskless.storage import remove_leftovers, write_text

STAGES = ("read", "clean", "detect", "train", "embed", "cluster", "umap", "report")


@dataclass(frozen=True)
class Study:
    """A study folder and its settings.

    Attributes
    ----------
    folder
        Holds study.toml and everything that is computed.
    config
        The resolved settings.
    """

    folder: Path
    config: Config = field(repr=False)

    @classmethod
    def create(
        cls,
        folder: Path,
        config: Config,
        notes: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> Study:
        """Write study.toml, and small text files that it names, into a new or empty folder.

        Raises
        ------
        StudyError
            If there is a study already, or the folder holds other files.
        """
        if (folder / "study.toml").exists():
            raise StudyError(
                f"{folder} holds a study already. Edit its study.toml, or choose another folder"
            )
        if folder.exists() and not folder.is_dir():
            raise StudyError(f"{folder} is a file. Choose another name for the study")
        if folder.exists() and any(folder.iterdir()):
            raise StudyError(f"{folder} is not empty. Choose a new or empty folder for the study")
        for name, text in (files or {}).items():
            write_text(folder / name, text)
        write_text(folder / "study.toml", to_toml(config, notes))
        return cls(folder, config)

    @classmethod
    def open(cls, folder: Path) -> Study:
        """Open the study in `folder`; raises SettingsError where study.toml is not usable."""
        return cls(folder, load_config(folder / "study.toml"))

    @property
    def images_folder(self) -> Path:
        """Cleaned images, one OME-Zarr each, with images.json and scaling.json."""
        return self.folder / "images"

    @property
    def inventory_file(self) -> Path:
        """What the read stage found."""
        return self.images_folder / "images.json"

    @property
    def scaling_file(self) -> Path:
        """How intensities were scaled, cohort-wide."""
        return self.images_folder / "scaling.json"

    @property
    def cells_file(self) -> Path:
        """The AnnData of all cells."""
        return self.folder / "cells.h5ad"

    @property
    def encoder_folder(self) -> Path:
        """Weights, their description, history and checkpoint."""
        return self.folder / "encoder"

    @property
    def figures_folder(self) -> Path:
        """Each figure as PNG and SVG."""
        return self.folder / "figures"

    @property
    def report_file(self) -> Path:
        """One self-contained page."""
        return self.folder / "report.html"

    @property
    def log_file(self) -> Path:
        """One line a finished stage."""
        return self.folder / "run.jsonl"

    def image_file(self, name: str) -> Path:
        """Where the cleaned pixels of an image lie."""
        return self.images_folder / f"{name}.zarr"

    def resolve(self, path: str) -> Path:
        """A path of study.toml: absolute, or relative to the study's folder."""
        return (self.folder / path).resolve()

    def records(self) -> list[dict[str, Any]]:
        """The lines of run.jsonl; a line cut by a kill is left out."""
        if not self.log_file.exists():
            return []
        records = []
        for line in self.log_file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return [record for record in records if isinstance(record, dict)]

    def latest_records(self) -> list[dict[str, Any]]:
        """The last record of each stage, in the order of the stages."""
        latest = {record.get("stage"): record for record in self.records()}
        return [latest[stage] for stage in STAGES if stage in latest]

    def add_record(self, record: Mapping[str, Any]) -> None:
        """Append one line to run.jsonl and flush it to disk."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        try:
            # A line that a kill cut short must not swallow the next one.
            before = self.log_file.read_bytes() if self.log_file.exists() else b""
            cut = before != b"" and not before.endswith(b"\n")
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write("\n" + line if cut else line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StudyError(f"cannot write {self.log_file}: {error.strerror}") from error

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on this study.

        Raises
        ------
        StudyError
            If another process holds it, or the folder is read-only.
        """
        from filelock import FileLock, Timeout

        try:
            lock = FileLock(self.folder / ".lock", timeout=0)
            with lock:
                remove_leftovers(self.folder)
                remove_leftovers(self.images_folder)
                remove_leftovers(self.encoder_folder)
                yield
        except Timeout:
            raise StudyError(
                f"another maskless process is working on {self.folder}. Wait for it, or stop it"
            ) from None
        except PermissionError as error:
            raise StudyError(f"cannot write into {self.folder}: {error.strerror}") from error


def fingerprint(*parts: object) -> str:
    """Hash of JSON-able parts, the same on every machine; 16 hexadecimal digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, default=_as_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_plain(value: object) -> object:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def listing(paths: list[Path]) -> list[list[object]]:
    """Files at and below `paths`: [path, bytes, modification time in ns], sorted.

    Cheap to compare: it tells whether the content must be looked at again.
    """
    found: list[list[object]] = []
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                state = file.stat()
                found.append([str(file), state.st_size, state.st_mtime_ns])
    return sorted(found, key=str)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes; read once while its size and time stay the same."""
    state = path.stat()
    return _hash(path, state.st_size, state.st_mtime_ns)


@cache
def _hash(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    names = ("numpy", "scipy", "torch", "numba", "anndata", "zarr", "scikit-learn")
    return {
        "maskless": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


@dataclass
class Usage:
    """Seconds and peak memory of a piece of work."""

    seconds: float = 0.0
    peak_mib: float = 0.0


@contextmanager
def measure(every_seconds: float = 0.05) -> Iterator[Usage]:
    """Measure wall seconds and the peak resident memory of this process while the block runs."""
    import psutil

    usage = Usage()
    process = psutil.Process()

    def resident_mib() -> float:
        return float(process.memory_info().rss) / 2**20

    usage.peak_mib = resident_mib()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(every_seconds):
            usage.peak_mib = max(usage.peak_mib, resident_mib())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    start = time.monotonic()
    try:
        yield usage
    finally:
        usage.seconds = time.monotonic() - start
        stop.set()
        thread.join()
        usage.peak_mib = max(usage.peak_mib, resident_mib())
