"""PhenoGraph inside a selection, as a process that can be stopped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from maskless.annotate import asked, writing
from maskless.annotate.session import Session
from maskless.annotate.splitting import Job, Jobs
from maskless.errors import InputError


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """Cells of one cluster that lie in two far places, and others."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    points = rng.normal(0, 1, (600, 8)).astype(np.float32)
    points[:400, 0] += 12 * truth
    cells = anndata.AnnData(
        points,
        obs=pd.DataFrame(
            {
                "image": pd.Categorical(["a"] * 600),
                "y": rng.uniform(0, 100, 600),
                "x": rng.uniform(0, 100, 600),
                "cluster": pd.Categorical(["0"] * 400 + ["1"] * 200),
            },
            index=[str(i) for i in range(600)],
        ),
    )
    cells.obsm["X_embedding"] = points
    cells.obsm["X_umap"] = points[:, :2]
    file = tmp_path_factory.mktemp("planted") / "cells.h5ad"
    cells.write_h5ad(file)
    return file, truth


@pytest.fixture
def jobs(planted: tuple[Path, np.ndarray]) -> Iterator[Jobs]:
    made = Jobs(planted[0])
    yield made
    made.close()


def ended(jobs: Jobs, job: Job) -> Job:
    while jobs.job(job.id).state == "running" or jobs.job(job.id).seconds is None:
        time.sleep(0.05)
    return jobs.job(job.id)


ROWS = np.arange(400, dtype=np.uint32)


def test_the_parts_are_those_that_were_planted(
    jobs: Jobs, planted: tuple[Path, np.ndarray]
) -> None:
    job = jobs.start("0", ROWS, k=20, resolution=0.1, min_size=10)
    with pytest.raises(InputError, match="running already"):
        jobs.start("0", ROWS, k=20, resolution=1, min_size=10)
    done = ended(jobs, job)
    assert done.state == "done", done.message
    assert done.parts is not None
    assert adjusted_rand_score(done.parts, planted[1]) == 1
    told = done.as_json()
    assert sum(told["sizes"]) + told["left"] == 400
    assert told["share"] == 1


def test_a_split_can_be_cancelled_and_another_one_started(jobs: Jobs) -> None:
    job = jobs.start("0", ROWS, k=20, resolution=1, min_size=10)
    assert jobs.cancel(job.id).state == "cancelled"
    assert ended(jobs, job).parts is None
    assert jobs.cancel(job.id).state == "cancelled"
    other = jobs.start("0", ROWS, k=20, resolution=1, min_size=10)
    assert jobs.job(other.id).state == "running"


def test_what_cannot_be_split_is_said(jobs: Jobs, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too few"):
        jobs.start("0", ROWS[:10], k=20, resolution=1, min_size=10)
    with pytest.raises(InputError, match="no such job"):
        jobs.job("nothing")
    broken = Jobs(tmp_path / "gone.h5ad")
    done = ended(broken, broken.start("0", ROWS, k=20, resolution=1, min_size=10))
    assert done.state == "failed"
    assert "no such file" in done.message
    assert "Traceback" not in done.message


def test_a_split_is_applied_to_the_labels_as_one_operation(fresh_folder: Path) -> None:
    session = Session(fresh_folder)
    group = session.cells.clustering.ids[int(np.argmax(session.store.state("ann").counts))]
    rows = session.store.state("ann").rows_of(group)
    job = Job("known", group, rows, state="done")
    job.parts = np.where(np.arange(len(rows)) % 3 == 2, -1, np.arange(len(rows)) % 3)
    session.jobs._jobs["known"] = job
    writing.apply_split(session, asked.ApplySplit(who="ann", revision=0, job="known"))
    labels = session.store.state("ann")
    assert (labels.rows_of(group) == rows[job.parts < 0]).all()
    assert (labels.rows_of(f"{group}.1") == rows[job.parts == 0]).all()
    assert (labels.rows_of(f"{group}.2") == rows[job.parts == 1]).all()
    assert len(session.store.history("ann").operations) == 1
    job.parts = np.zeros(len(rows), np.int32)
    with pytest.raises(InputError, match="one part only"):
        writing.apply_split(session, asked.ApplySplit(who="ann", revision=1, job="known"))
    session.close()
