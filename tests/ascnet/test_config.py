from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ascnet.config import AugmentConfig, Config, reference
from ascnet.errors import ConfigError
from ascnet.settings import flatten

ROOT = Path(__file__).resolve().parents[2]


def test_overrides_reach_nested_keys_with_their_types() -> None:
    words = ["corpus=a.parquet", "epochs=2", "optim.lr=1e-3", "data.speeds=1,3", "steps=7", "data.fps=null",
             "model.options.stem_stride=[1, 1, 1]", "data.augment.crop_area=[0.2, 1]", "symmetric=true"]  # fmt: skip
    config = Config.load(None, words)
    assert config.data.corpus == config.corpus == "a.parquet"
    assert config.epochs == 2 and config.steps == 7 and config.symmetric is True and config.data.fps is None
    assert config.optim.lr == pytest.approx(1e-3)
    assert config.data.speeds == (1.0, 3.0) and config.data.augment.crop_area == (0.2, 1.0)
    assert config.model.options == {"stem_stride": [1, 1, 1]}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optim.lrr=1", "unknown key 'optim.lrr'; did you mean 'optim.lr'"),
        ("batch_size=3", "unknown key 'batch_size'; did you mean 'data.batch_size'"),
        ("epocs=3", "unknown key 'epocs'; did you mean 'epochs'"),
        ("data.augment.colour=1", "unknown key 'data.augment.colour'"),
        ("gamma=1.5", "gamma is 1.5; it must be at most 1"),
        ("optim.lr=0", "optim.lr is 0.0; it must be above 0"),
        ("data.speeds=[1, 0]", r"data.speeds is \(1.0, 0.0\); it must be at least 0.25"),
        ("data.speeds=[1, 17]", r"data.speeds is \(1.0, 17.0\); it must be at most 16"),
        ("data.window=both", "data.window is 'both'; allowed: independent, shared, adjacent, adjacent"),
        ("data.window=adjacent(3)", r"data.window is 'adjacent\(3\)'; allowed: .*adjacent\(2\)"),
        ("data.speeds=[1]", "expected two speeds"),
        ("data.augment.crop_area=[1, 0.5]", "the smaller value goes first"),
        ("optim.name=sdg", "optim.name is 'sdg'; allowed: sgd, adamw"),
        ("epochs=1.5", "epochs is 1.5; expected a whole number"),
        ("epochs=many", "epochs is 'many'; expected a whole number"),
        ("seed=true", "seed is True; expected a whole number"),
        ("symmetric=1", "symmetric is 1; expected true or false"),
        ("data=3", "data is a section of keys"),
        ("data.augment.mean=[1, 1]", "expected 3 values, got 2"),
        ("model.options=3", "expected keys and values"),
        ("model.sync_norm=maybe", "model.sync_norm is 'maybe'; expected true or false"),
        ("retrieval.placement=split", "retrieval.placement is 'split'; allowed: replicated, sharded"),
        ("optim.accumulate=33", "optim.accumulate is 33; each part of a batch needs at least 2 samples of the 64"),
        ("optim.max_skipped=-1", "optim.max_skipped is -1; it must be at least 0"),
        ("epochs", "expected key=value"),
    ],
)
def test_mistake_is_told_with_the_key_the_value_and_what_would_be_right(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Config.load(None, [word])
    assert "\n" not in str(caught.value) and word in str(caught.value)


def test_mistake_in_a_file_names_the_file_and_not_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim:\n  lrr: 1\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: unknown key 'optim.lrr'; did you mean 'optim.lr'"):
        Config.load(path, ["epochs=2"])
    path.write_text("a: [")
    with pytest.raises(ConfigError, match=r"mine.yaml: not a YAML file"):
        Config.load(path)
    path.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: expected `key: value` lines"):
        Config.load(path)
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        Config.load(tmp_path / "nowhere.yaml")


def test_file_may_start_from_another_one(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("epochs: 3\noptim: {lr: 0.5, momentum: 0.8}\n")
    (tmp_path / "mine.yaml").write_text("base: base.yaml\ncorpus: a.parquet\noptim: {lr: 0.25}\n")
    config = Config.load(tmp_path / "mine.yaml")
    assert (config.epochs, config.optim.lr, config.optim.momentum, config.corpus) == (3, 0.25, 0.8, "a.parquet")
    (tmp_path / "base.yaml").write_text("base: mine.yaml\n")
    with pytest.raises(ConfigError, match="leads back to this file"):
        Config.load(tmp_path / "mine.yaml")


def test_written_configuration_reads_back_equal(tmp_path: Path) -> None:
    config = Config.load(None, ["optim.lr=1e-7", "data.fps=25", "model.options.blocks=[1,1,1,1]", "steps=null"])
    config.save(tmp_path / "config.yaml")
    assert Config.load(tmp_path / "config.yaml") == config
    assert Config.from_dict(config.to_dict()) == config


@pytest.mark.parametrize("name", ["base", "kinetics400", "ucf101"])
def test_published_settings_are_those_of_the_reference_they_name(name: str) -> None:
    config = Config.load(ROOT / "configs" / f"{name}.yaml")
    assert (config.data.frames, config.data.size, config.data.speeds) == (16, 112, (1.0, 2.0))
    assert (config.optim.name, config.optim.lr, config.optim.momentum, config.optim.weight_decay) == (
        "sgd", 0.1, 0.9, 1e-4)  # fmt: skip
    assert config.optim.final_lr_ratio == 0.001 and config.epochs == 200 and config.gamma == 0.5
    assert (config.ema.momentum, config.ema.final) == (0.996, 1.0)
    assert config.model.width == 1.0 and config.model.projector_hidden == 4096 and config.model.projector_dim == 256


def test_reference_page_lists_every_key_and_is_up_to_date() -> None:
    text = reference()
    for key in flatten(Config().to_dict()):
        assert f"| `{key}` |" in text
    page = ROOT / "docs" / "configuration.md"
    assert page.read_text() == text, "run python -m ascnet.config > docs/configuration.md"


def test_augmentation_keys_and_defaults_are_those_of_the_loader() -> None:
    from dali_pipes import Augment

    assert dataclasses.asdict(AugmentConfig()) == dataclasses.asdict(Augment())
