"""The configurations that come with the package: each can be used, says what it is, and differs where it should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from ascnet import cli
from ascnet.build import build_model
from ascnet.config import Config
from ascnet.optim import build_optimizer
from ascnet.settings import flatten

ROOT = Path(__file__).resolve().parent.parent.parent
# Recipes of recognition have keys of their own (tests/test_repository.py).
FILES = [
    path for path in sorted((ROOT / "configs").glob("*.yaml")) if not path.stem.startswith(("finetune_", "linear_"))
]


def load(name: str) -> Config:
    return Config.load(ROOT / "configs" / f"{name}.yaml")


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(place for place, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.removeprefix("#").strip() for line in lines[:end])


def different(name: str, other: str) -> dict[str, object]:
    """Keys of `name` that are not those of `other`."""
    mine, theirs = (flatten(load(config).to_dict()) for config in (name, other))
    return {key: mine.get(key) for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_builds_its_model_and_optimiser(path: Path) -> None:
    config = Config.load(path)
    with torch.device("meta"):
        model = build_model(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert build_optimizer(model, config.optim).param_groups


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_says_what_it_is_whence_its_numbers_are_and_how_to_start_it(path: Path) -> None:
    text = header(path)
    # Numbers come from the paper, from another publication that is named, or are the project's own.
    assert re.search(r"\b(From|Ours|ours|come from|is ours|numbers?)\b", text), f"{path.name} does not say whence"
    launch = re.search(r"^Launch: (.*)", text, flags=re.MULTILINE)
    assert launch, f"{path.name} has no launch line"
    for option in ("--config ", "corpus="):
        if option in launch[1] and "pretrain" in launch[1] and "torchrun" not in launch[1]:
            words = launch[1].split()
            assert cli.parser().parse_args([*words[1:]]).config == path.stem


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("acp_only", {"gamma": 0.0}),
        ("scp_only", {"gamma": 1.0}),
        ("random_positive", {"retrieval.positive": "random"}),
        ("symmetric", {"symmetric": True}),
        ("gamma_sweep", {}),
    ],
)
def test_an_ablation_differs_from_the_whole_method_in_one_key(name: str, changed: dict[str, object]) -> None:
    assert different(name, "retrieved") == changed


def test_published_settings_are_those_of_the_publications() -> None:
    for name in ("kinetics400", "ucf101", "kinetics400_s3dg", "ucf101_s3dg"):
        config = load(name)
        assert (config.data.frames, config.data.speeds, config.epochs) == (16, (1, 2), 200)
        assert config.retrieval.exclude == ("group" if name.startswith("ucf") else "self")
        small = config.model.encoder == "r3d18"
        assert (config.data.size, config.optim.lr) == ((112, 0.1) if small else (224, 0.05))
    lars = load("kinetics400_lars").optim
    assert (lars.name, lars.lr, lars.weight_decay, lars.warmup_epochs) == ("lars", 0.6, 1e-6, 35)
    assert lars.warmup_start * lars.lr == pytest.approx(0.001, rel=1e-3)
