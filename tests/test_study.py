"""The study folder: created once, opened again, locked, and its log survives a cut."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskless.config import resolve
from maskless.errors import SettingsError, StudyError
from maskless.study import Study, file_hash, fingerprint, listing, measure, versions


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "study", resolve({"preset": "small"}))


def test_a_created_study_opens_with_the_same_settings(study: Study) -> None:
    assert Study.open(study.folder).config == study.config


def test_a_study_is_not_written_over(study: Study) -> None:
    before = (study.folder / "study.toml").read_bytes()
    with pytest.raises(StudyError, match="holds a study already"):
        Study.create(study.folder, resolve({"preset": "paper"}))
    assert (study.folder / "study.toml").read_bytes() == before


def test_a_study_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(StudyError, match="not empty"):
        Study.create(tmp_path, resolve({}))
    with pytest.raises(StudyError, match="is a file"):
        Study.create(tmp_path / "thesis.doc", resolve({}))


def test_no_study_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="maskless init"):
        Study.open(tmp_path)


def test_a_record_cut_by_a_kill_is_left_out_and_the_next_is_whole(study: Study) -> None:
    study.add_record({"stage": "read", "seconds": 1})
    with study.log_file.open("a") as file:
        file.write('{"stage": "cle')
    study.add_record({"stage": "clean", "seconds": 2})
    study.add_record({"stage": "read", "seconds": 3})
    assert [r["stage"] for r in study.records()] == ["read", "clean", "read"]
    assert [(r["stage"], r["seconds"]) for r in study.latest_records()] == [
        ("read", 3),
        ("clean", 2),
    ]


def test_a_second_process_is_refused(study: Study) -> None:
    code = (
        "import sys; from pathlib import Path; from maskless.study import Study\n"
        "from maskless.errors import StudyError\n"
        "try:\n"
        "    with Study.open(Path(sys.argv[1])).lock(): print('entered')\n"
        "except StudyError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(study.folder)]
    with study.lock():
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "another maskless process is working" in said
    assert "entered" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_leftovers_of_a_killed_process_go_when_work_starts(study: Study) -> None:
    (study.folder / ".cells.h5ad.part-0").write_text("half")
    with study.lock():
        assert not (study.folder / ".cells.h5ad.part-0").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_a_read_only_study_is_one_clear_line(study: Study) -> None:
    study.folder.chmod(0o500)
    try:
        with pytest.raises(StudyError, match="cannot write"), study.lock():
            pass
    finally:
        study.folder.chmod(0o700)


def test_a_fingerprint_tells_settings_apart_and_not_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert fingerprint(resolve({}).cluster) == fingerprint(resolve({}).cluster)
    assert fingerprint(resolve({}).cluster) != fingerprint(resolve({"cluster": {"k": 7}}).cluster)


def test_a_listing_tells_when_a_file_came_went_or_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = listing([tmp_path])
    assert listing([tmp_path]) == before
    (tmp_path / "a").write_text("22")
    changed = listing([tmp_path])
    assert changed != before
    (tmp_path / "b").write_text("")
    assert len(listing([tmp_path])) == len(changed) + 1


def test_a_file_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_peak_memory_is_seen() -> None:
    with measure(every_seconds=0.001) as usage:
        block = bytearray(200 * 2**20)
        block[:: 2**12] = b"x" * len(block[:: 2**12])
    del block
    with measure() as after:
        pass
    assert usage.peak_mib > after.peak_mib + 150
    assert usage.seconds > 0


def test_versions_name_what_results_depend_on() -> None:
    assert {"maskless", "numpy", "torch", "anndata"} <= set(versions())
