"""Arguments of `ascnet finetune`, `linear`, `knn` and `probe`. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

import argparse
from typing import Any

from ascnet import options

RECOGNISE = {
    "finetune": (
        "train an encoder and a classifier on labelled videos, and test them",
        "Train all weights of an encoder, and a linear classifier on its pooled feature, on the labelled videos of a "
        "corpus, and test them on its test split.",
        "Example: ascnet finetune --config finetune_ucf101_r3d18 --checkpoint runs/k400 corpus=ucf101-{fold}.parquet "
        "--folds 1 2 3 --out runs/finetune.",
    ),
    "linear": (
        "train a linear classifier on a frozen encoder, and test it",
        "Train a linear classifier on the pooled feature of a frozen encoder, on the labelled videos of a corpus, and "
        "test it on its test split.",
        "Example: ascnet linear --config linear_ucf101_r3d18 --checkpoint runs/k400 corpus=ucf101.parquet "
        "--out runs/linear.",
    ),
}


def add_commands(commands: Any) -> None:
    """Adds the four commands to the parser's."""
    for name, (short, long, example) in RECOGNISE.items():
        _add_recognise(commands.add_parser(name, help=short, description=long, epilog=f"{example} {_MORE}"), name)
    _add_knn(commands)
    _add_probe(commands)


_MORE = (
    "Ctrl-C and SIGTERM write a checkpoint first; the same command with --resume goes on. On several GPUs: torchrun "
    "--nproc_per_node N -m ascnet.cli ... docs/recognition.md has recipes and protocols."
)


def _add_recognise(command: argparse.ArgumentParser, name: str) -> None:
    command.add_argument(
        "--config", metavar="YAML", help="recipe: a file, or the name of one that comes with ascnet; default: none"
    )
    options.add_encoder(command, default="random weights")
    command.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings laid over the recipe, dotted (optim.lr=0.05); every key is in docs/recognition_keys.md",
    )
    command.add_argument(
        "--folds", nargs="+", type=int, metavar="N", help="official splits to average over, {fold} in corpus=PATH"
    )
    command.add_argument(
        "--protocol",
        choices=("clean", "rspnet"),
        help="how the best model is chosen: on videos held out of training (clean, the default) or, as published, on "
        "the test split (rspnet)",
    )
    command.add_argument("--out", metavar="DIR", help="folder of the run; default: runs/NAME-OF-THE-RECIPE")
    options.add_run(command)
    command.set_defaults(command=_recognise, frozen=name == "linear")


def _add_features(command: argparse.ArgumentParser) -> None:
    """Where features come from, for commands that train no network."""
    options.add_encoder(command)
    command.add_argument("--config", metavar="YAML", help="the encoder's configuration, where there is no checkpoint")
    options.add_corpus(command)
    options.add_network(command)
    command.add_argument("--train-split", metavar="SPLIT", default="train", help="default: train")
    command.add_argument("--test-split", metavar="SPLIT", default="test", help="default: test")
    options.add_clip(command)
    command.add_argument("--batch-size", type=int, default=40, metavar="N", help="clips in a forward pass; default: 40")
    options.add_machine(command)
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of random weights and draws; default: 0")


def _add_knn(commands: Any) -> None:
    command = commands.add_parser(
        "knn",
        help="classify test videos by their nearest training videos",
        description="Classify each test video by a vote of its k nearest training videos, weighted by "
        "exp(cosine / temperature) as in InstDisc and DINO, and by plain majority. Nothing is trained.",
        epilog="Example: ascnet knn --checkpoint runs/ucf101 --corpus ucf101.parquet. docs/probes.md explains it.",
    )
    _add_features(command)
    command.add_argument("--k", type=int, default=20, metavar="K", help="neighbours that vote; default: 20")
    command.add_argument("--temperature", type=float, default=0.07, metavar="T", help="of the weights; default: 0.07")
    command.add_argument("--clips", type=int, default=10, metavar="N", help="clips per video; default: 10")
    command.add_argument("--out", metavar="DIR", help="folder for knn.json; default: `knn` in the run's folder")
    command.set_defaults(command=_knn)


def _add_probe(commands: Any) -> None:
    command = commands.add_parser(
        "probe",
        help="ask what frozen features know: playback speed, arrow of time, classes by layer",
        description="Fit a regularised logistic regression on frozen features of training videos and test it on other "
        "videos: which playback speed a clip has (speed), whether it runs forward (arrow), or its class from the "
        "pooled features of every stage of the encoder (layers).",
        epilog="Example: ascnet probe --kind speed --checkpoint runs/ucf101 --corpus ucf101.parquet. docs/probes.md "
        "explains what is fitted and how the error is computed.",
    )
    command.add_argument("--kind", choices=("speed", "arrow", "layers"), required=True, help="what is asked")
    _add_features(command)
    command.add_argument(
        "--speeds", nargs="+", type=float, default=[1.0, 2.0], metavar="X", help="speeds to tell apart; default: 1 2"
    )
    command.add_argument("--clips", type=int, default=4, metavar="N", help="clips per video and answer; default: 4")
    command.add_argument(
        "--out", metavar="DIR", help="folder for probe_KIND.json; default: `probe` in the run's folder"
    )
    command.set_defaults(command=_probe)


def _recognise(args: argparse.Namespace) -> int:
    from ascnet.evaluate.recognise_command import recognise_command

    return recognise_command(args)


def _knn(args: argparse.Namespace) -> int:
    from ascnet.evaluate.knn_command import knn_command

    return knn_command(args)


def _probe(args: argparse.Namespace) -> int:
    from ascnet.evaluate.probe_command import probe_command

    return probe_command(args)
