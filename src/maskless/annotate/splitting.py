"""PhenoGraph again inside a selection, as a process of its own that can be stopped.

The server asks for a job and looks at it from time to time; the page shows what it finds and a
person decides. Run as ``python -m maskless.annotate.splitting FOLDER`` it is the worker: it reads
job.json and rows.npy there, prints its progress, and writes parts.npy.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, MasklessError
from maskless.storage import atomic_path

_MOST_KEPT = 20


@dataclass
class Job:
    """A running or finished split.

    Attributes
    ----------
    id
        Names the job.
    group
        What is split.
    rows
        Its cells.
    state
        "running", "done", "failed" or "cancelled".
    message
        What it is doing, or why it failed.
    share
        How much is done, 0 to 1.
    parts
        For each row its part, -1 = in a part that is too small; None until done.
    """

    id: str
    group: str
    rows: NDArray[np.uint32]
    state: str = "running"
    message: str = "starting"
    share: float = 0.0
    started: float = field(default_factory=time.monotonic)
    parts: NDArray[np.int32] | None = None
    seconds: float | None = None

    def as_json(self) -> dict[str, Any]:
        """What the page shows of it."""
        sizes: list[int] = []
        if self.parts is not None:
            sizes = np.bincount(self.parts[self.parts >= 0]).tolist()
        seconds = self.seconds if self.seconds is not None else time.monotonic() - self.started
        return {
            "id": self.id,
            "group": self.group,
            "cells": len(self.rows),
            "state": self.state,
            "message": self.message,
            "share": round(self.share, 3),
            "seconds": round(seconds, 1),
            "sizes": sizes,
            "left": len(self.rows) - sum(sizes) if self.parts is not None else 0,
        }


class Jobs:
    """Splits of one study.

    Parameters
    ----------
    file
        cells.h5ad.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._jobs: dict[str, Job] = {}
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def start(
        self, group: str, rows: NDArray[np.uint32], *, k: int, resolution: float, min_size: int
    ) -> Job:
        """Start to split cells; raises InputError if there are too few, or one runs already."""
        if len(rows) <= k:
            raise InputError(
                "there are too few cells to split",
                expected=f"more than {k}",
                found=len(rows),
                do="Choose more cells, or fewer neighbours",
            )
        with self._lock:
            if any(job.state == "running" for job in self._jobs.values()):
                raise InputError("a split is running already", do="Wait for it, or cancel it")
            job = Job(uuid.uuid4().hex[:12], group, rows)
            self._jobs[job.id] = job
            for old in list(self._jobs)[:-_MOST_KEPT]:
                del self._jobs[old]
        folder = Path(tempfile.mkdtemp(prefix="maskless-split-"))
        np.save(folder / "rows.npy", rows)
        settings = {"file": str(self._file), "k": k, "resolution": resolution, "min_size": min_size}
        (folder / "job.json").write_text(json.dumps(settings), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "maskless.annotate.splitting", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self._processes[job.id] = process
        threading.Thread(target=self._watch, args=(job, process, folder), daemon=True).start()
        return job

    def job(self, number: str) -> Job:
        """A job by its id; raises InputError where there is none."""
        with self._lock:
            if number not in self._jobs:
                raise InputError("there is no such job")
            return self._jobs[number]

    def cancel(self, number: str) -> Job:
        """Stop a job at once."""
        job = self.job(number)
        if job.state == "running":
            job.state, job.message = "cancelled", "cancelled"
            self._processes[job.id].kill()
        return job

    def close(self) -> None:
        """Stop everything."""
        for number in list(self._jobs):
            self.cancel(number)

    def _watch(self, job: Job, process: subprocess.Popen[str], folder: Path) -> None:
        last = ""
        with process.stdout or nullcontext(()) as lines:
            for line in lines:
                words = line.strip().split(" ", 2)
                if len(words) == 3 and words[0] == "progress":
                    job.share, job.message = float(words[1]), words[2]
                elif line.strip():
                    last = line.strip()
        code = process.wait()
        if job.state == "running":
            try:
                if code:
                    raise InputError(last or f"the split stopped with code {code}")
                job.parts = np.load(folder / "parts.npy", allow_pickle=False)
                job.share, job.message, job.state = 1.0, "done", "done"
            except (OSError, ValueError, MasklessError) as error:
                job.message, job.state = str(error), "failed"
        job.seconds = time.monotonic() - job.started
        self._processes.pop(job.id, None)
        shutil.rmtree(folder, ignore_errors=True)


def work(folder: Path) -> None:
    """Split the cells of a job's folder; see the module."""
    from maskless.analysis import divide
    from maskless.annotate.study_cells import load_cells

    settings = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    rows = np.load(folder / "rows.npy", allow_pickle=False)
    _say(0.02, "reading embeddings")
    cells = load_cells(Path(settings["file"]))
    blocks = []
    for part, block in cells.rows_of("X_embedding", rows):
        blocks.append(block)
        _say(0.02 + 0.28 * part.stop / len(rows), f"read {part.stop:,} of {len(rows):,} cells")
    points = np.concatenate(blocks)
    parts = divide(
        points,
        settings["k"],
        settings["resolution"],
        settings["min_size"],
        on_step=lambda share, step: _say(0.3 + 0.7 * share, step),
    )
    with atomic_path(folder / "parts.npy") as temporary, temporary.open("wb") as file:
        np.save(file, parts)


def _say(share: float, message: str) -> None:
    print(f"progress {share:.3f} {message}", flush=True)


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]))
    except MasklessError as error:
        sys.exit(str(error))
