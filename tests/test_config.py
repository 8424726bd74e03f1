"""study.toml: what is written is what is read, and mistakes are told in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskless.config import PRESETS, Config, ImageSettings, Settings, load_config, resolve, to_toml
from maskless.errors import SettingsError


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_written_file_gives_the_same_settings(preset: str, tmp_path: Path) -> None:
    config = resolve({"preset": preset, "images": {"paths": ["a b.tif"], "panel": "p.csv"}})
    path = tmp_path / "study.toml"
    path.write_text(to_toml(config, {"images": "found marker: CD3\nleft out: Xe"}))
    assert load_config(path) == config


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=4))
def test_any_text_survives_the_file(texts: list[str]) -> None:
    import tomllib

    config = Config(images=ImageSettings(paths=tuple(texts)))
    assert resolve(tomllib.loads(to_toml(config))).images.paths == tuple(texts)


def test_every_setting_is_explained() -> None:
    unexplained = []
    for name, info in Config.model_fields.items():
        table = info.annotation
        if isinstance(table, type) and issubclass(table, Settings):
            unexplained += [
                f"{name}.{key}"
                for key, setting in table.model_fields.items()
                if not setting.description
            ]
        elif not info.description:
            unexplained.append(name)
    assert unexplained == []


def test_the_paper_preset_is_the_paper() -> None:
    paper = resolve({"preset": "paper"})
    assert paper.train.steps == 5000
    assert paper.train.cells_per_step * len(paper.train.view_um) == 3072
    assert paper.train.view_um == (16, 16, 14, 12)
    assert (paper.train.optimizer, paper.train.learning_rate) == ("lars", 4.6)
    assert (paper.train.momentum, paper.train.weight_decay) == (0.9, 1e-6)
    assert paper.train.warmup_steps == 10
    assert paper.train.gain == (0.5, 2.0)
    assert paper.train.zoom == (0.9, 1.1)
    assert paper.train.noise == 0.1
    assert (paper.cluster.k, paper.cluster.min_size) == (8, 50)
    assert (paper.encoder.embedding, paper.encoder.expansion) == (256, 2)


def test_a_file_overrules_its_preset() -> None:
    config = resolve({"preset": "paper", "cluster": {"k": 12}})
    assert (config.cluster.k, config.train.steps) == (12, 5000)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"train": {"stepz": 1}}, r"train\.stepz"),
        ({"train": {"steps": -1}}, r"train\.steps is -1"),
        ({"train": 3}, r"train is 3"),
        ({"preset": "best"}, r"preset is 'best'.*default, paper, small"),
        ({"clean": {"percentile": float("nan")}}, r"clean\.percentile"),
    ],
)
def test_a_mistake_is_named(content: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        resolve(content)
    assert re.search("study.toml", str(caught.value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["preset = ", "\x00", "[train", "seed = 1\nseed = 2"])
def test_a_file_that_is_no_toml_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"study\.toml.*not a readable TOML"):
        load_config(path)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="maskless init"):
        load_config(tmp_path / "study.toml")
