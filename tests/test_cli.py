"""The command line: quick help, frozen options, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import maskless
from maskless.cli import app
from maskless.study import STAGES


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "maskless.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from maskless.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        "heavy = {'torch', 'numpy', 'pandas', 'anndata', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "explain" in found.stdout


def test_the_commands_and_their_options_are_what_people_rely_on() -> None:
    import typer.main

    command = typer.main.get_command(app)
    options = {
        name: sorted(o for p in sub.params for o in p.opts if o.startswith("--") and o != "--help")
        for name, sub in command.commands.items()
    }
    stage = ["--keep-going", "--quiet", "--strict"]
    assert options == {
        "assign": ["--expert", "--keep-going", "--quiet", "--strict", "--to", "--um-per-pixel"],
        "annotate": ["--browser", "--host", "--port"],
        "compare": [
            "--beside",
            "--label",
            "--masks",
            "--paper",
            "--paper-steps",
            "--quiet",
            "--radius-um",
            "--reference",
            "--seeds",
            "--trainings",
            "--without",
        ],
        "demo": ["--quiet"],
        "init": [
            "--background",
            "--centres",
            "--keep-going",
            "--masks",
            "--nuclear",
            "--panel",
            "--preset",
            "--um-per-pixel",
        ],
        "run": ["--from", "--keep-going", "--quiet", "--strict", "--until"],
        **{name: stage for name in STAGES},
        "export": ["--quiet", "--to"],
        "explain": ["--between", "--by"],
        "info": [],
        "segment": ["--quiet"],
        "spillover": ["--all-pairs", "--metal", "--out"],
        "subcluster": [
            "--by",
            "--k",
            "--markers",
            "--min-size",
            "--of",
            "--quiet",
            "--resolution",
        ],
        "simulate": ["--density", "--images", "--preset", "--quiet", "--seed", "--size-px"],
    }


@pytest.mark.parametrize(
    "command",
    [
        "assign",
        "demo",
        "subcluster",
        "init",
        "run",
        "explain",
        "export",
        "info",
        "simulate",
        "spillover",
        *STAGES,
    ],
)
def test_every_command_shows_an_example(command: str) -> None:
    import typer.main

    assert "Example: maskless " in typer.main.get_command(app).commands[command].help


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run"], ["run", "x", "--until", "fly"], ["explain", "x"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    found = run(*arguments)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr


def test_a_missing_study_exits_with_1_and_one_line(tmp_path: Path) -> None:
    found = run("run", str(tmp_path / "nothing"))
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    assert "maskless init" in found.stderr


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == maskless.__version__


def test_init_writes_what_it_found(tmp_path: Path) -> None:
    from maskless.config import load_config
    from maskless.simulate import simulate

    tissue = simulate(tmp_path / "tissue", "demo", images=1, size_px=64)
    found = run("init", str(tmp_path / "study"), str(tissue), "--background", "Ki67")
    assert found.returncode == 0, found.stderr
    assert "1 images, 18 channels" in found.stdout
    assert "left out: " in found.stdout
    assert "Ki67" in found.stdout.split("left out: ")[1].splitlines()[0]
    config = load_config(tmp_path / "study" / "study.toml")
    assert config.images.background == ("Ki67",)
    again = run("init", str(tmp_path / "study"), str(tissue))
    assert again.returncode == 1
    assert "holds a study already" in again.stderr


@pytest.mark.parametrize("name", maskless.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(maskless, name) is not None


def test_names_that_are_not_there_are_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment_masks'"):
        _ = maskless.segment_masks
