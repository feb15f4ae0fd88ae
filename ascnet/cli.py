"""`ascnet pretrain | plan | retrieve | import-weights | export | demo | embed | search ...`: the command line.

Everything heavy is imported inside the commands, so that `--help` and mistakes in the arguments answer at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ascnet import options
from ascnet.errors import UserError
from ascnet.evaluate.options import add_commands as add_evaluation
from ascnet.report.command import add_command as add_report
from ascnet.search.options import add_commands as add_search

if TYPE_CHECKING:
    from ascnet.config import Config

Command = Callable[[argparse.Namespace], int]


class _Terminated(BaseException):
    """SIGTERM, raised so that everything open is closed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; None for those of the process.

    Returns:
        0; 2 for a user's mistake, 1 where reading or writing failed (one line on stderr, no traceback); 130 or 143 when
        stopped by Ctrl-C or SIGTERM.
    """
    top = parser()
    # Overrides may stand before and after the options; argparse gathers only the first group of positionals.
    args, rest = top.parse_known_args(arguments)
    if rest:
        if not hasattr(args, "overrides") or any(word.startswith("-") or "=" not in word for word in rest):
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        args.overrides += rest
    command: Command = args.command
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        return command(args)
    except KeyboardInterrupt:
        print("ascnet: interrupted", file=sys.stderr)
        return 130
    except _Terminated:
        print("ascnet: terminated", file=sys.stderr)
        return 143
    except UserError as error:
        return _mistake(error)
    except OSError as error:
        _mistake(error)
        return 1
    except ValueError as error:
        # Imported only now: a mistake in what dali_pipes was asked for can only have been raised once it was loaded.
        from dali_pipes import DataError

        if not isinstance(error, DataError):
            raise
        return _mistake(error)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _mistake(error: Exception) -> int:
    print(f"ascnet: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _pretrain(args: argparse.Namespace) -> int:
    config, out = _pretrain_settings(args)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    if not config.data.corpus:
        raise UserError("no corpus: say corpus=PATH (the file that `dali-pipes index` writes)")
    from ascnet.pretrain import pretrain
    from dali_pipes import Corpus

    allow = [word for word in args.allow if "=" not in word]
    corpus = Corpus.open(config.data.corpus)
    return _status(pretrain(config, corpus, out, resume=args.resume, allow=allow, max_minutes=args.max_minutes))


def _pretrain_settings(args: argparse.Namespace) -> tuple[Config, Path]:
    from ascnet.config import Config

    path: str | None = args.config
    # `--allow` takes all words up to the next option, so a setting behind it lands there.
    overrides = [*args.overrides, *(word for word in args.allow if "=" in word)]
    if args.profile is not None:
        from ascnet.logs.profile import as_override

        overrides.append(as_override(args.profile))
    if path is not None:
        path = str(find_config(path))
    elif args.resume and args.out is not None and (Path(args.out) / "config.yaml").is_file():
        path = str(Path(args.out) / "config.yaml")
    config = Config.load(path, overrides)
    name = Path(path).stem if path is not None else "pretrain"
    return config, Path(args.out if args.out is not None else f"runs/{name}")


def _status(summary: dict[str, Any]) -> int:
    from ascnet.training.interrupt import STATUS

    return STATUS.get(summary["stopped_by"], 0)


def _plan(args: argparse.Namespace) -> int:
    from ascnet.plan_command import plan_command

    return plan_command(args)


def _retrieve(args: argparse.Namespace) -> int:
    if args.checkpoint is None and not (args.untrained and args.config):
        raise UserError("say --checkpoint PATH, or --untrained with --config NAME for an untrained encoder alone")
    from ascnet.evaluate.command import retrieve_command

    return retrieve_command(args)


def _import_weights(args: argparse.Namespace) -> int:
    from ascnet.importing.command import import_command

    return import_command(args)


def _export(args: argparse.Namespace) -> int:
    from ascnet.exporting.command import export_command

    return export_command(args)


def _demo(args: argparse.Namespace) -> int:
    from ascnet.demo import run_demo

    return _status(
        run_demo(long=args.long, out=args.out, seed=args.seed, corpus_seed=args.corpus_seed, overrides=args.overrides)
    )


def find_config(name: str) -> Path:
    """A YAML file by path, or by name (`demo`, `configs/demo.yaml`) among those that come with the package.

    Raises:
        UserError: If there is none; the message lists the names that come with the package.
    """
    given = Path(name)
    if given.is_file():
        return given
    here = Path(__file__).resolve().parent
    # Beside the packages in a checkout, inside this one in an installed wheel.
    folders = [here.parent / "configs", here / "configs"]
    for folder in folders:
        candidate = folder / f"{given.stem}.yaml"
        if candidate.is_file() and given.parent.name in ("", "configs") and given.suffix in ("", ".yaml"):
            return candidate
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    raise UserError(f"--config {name}: no such file; the configurations that come with ascnet are {', '.join(known)}")


def parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    top = argparse.ArgumentParser(
        prog="ascnet",
        description="Self-supervised video pretraining by appearance and speed consistency (ASCNet), and its scores.",
        epilog="`ascnet COMMAND --help` explains a command. A corpus file is made by `dali-pipes index`.",
    )
    top.add_argument("--version", action=_Version, help="print the version and exit")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _add_pretrain(commands)
    _add_plan(commands)
    _add_retrieve(commands)
    _add_import_weights(commands)
    _add_export(commands)
    _add_demo(commands)
    add_evaluation(commands)
    add_report(commands)
    add_search(commands)
    return top


def _add_pretrain(commands: Any) -> None:
    command = commands.add_parser(
        "pretrain",
        help="train an encoder on the videos of a corpus, without labels",
        description="Train an encoder on the videos of a corpus, without labels. Writes the resolved configuration, "
        "metrics.jsonl, TensorBoard events and checkpoints into OUT.",
        epilog="Example: ascnet pretrain --config configs/ucf101.yaml corpus=ucf101.parquet epochs=100 optim.lr=0.05 "
        "--out runs/ucf101. Ctrl-C and SIGTERM write a checkpoint first; the same command with --resume goes on. "
        "On several GPUs: torchrun --nproc_per_node N -m ascnet.cli pretrain ... (docs/distributed.md).",
    )
    command.add_argument(
        "--config", metavar="YAML", help="configuration file, or the name of one that comes with ascnet; default: none"
    )
    command.add_argument(
        "overrides",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings laid over the file, dotted (optim.lr=0.05); every key is in docs/configuration.md",
    )
    command.add_argument("--out", metavar="DIR", help="folder of the run; default: runs/NAME-OF-THE-CONFIGURATION")
    options.add_run(command)
    command.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="KEY",
        help="settings, or whole sections (optim), in which a resumed run may differ from its checkpoint",
    )
    command.add_argument(
        "--profile", metavar="A:B", help="trace the steps A to B into OUT/profile, the same as log.profile=A,B"
    )
    command.set_defaults(command=_pretrain)


def _add_plan(commands: Any) -> None:
    command = commands.add_parser(
        "plan",
        help="say what a run needs before it starts: parameters, FLOPs, memory, decoding, steps, time",
        description="Say what a run needs before it starts: parameters, FLOPs of a step, memory of a GPU, clips and "
        "frames to decode, steps, and the time by a few measured steps. Nothing is trained or kept.",
        epilog="Example: ascnet plan --config kinetics400 --videos 240000 --gpus 8 --rate 4. docs/recipes.md explains "
        "every line.",
    )
    command.add_argument(
        "--config", metavar="YAML", help="configuration file, or the name of one that comes with ascnet; default: none"
    )
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings laid over the file, as for `pretrain`"
    )
    command.add_argument("--corpus", metavar="PATH", help="corpus file, the same as corpus=PATH")
    command.add_argument("--videos", type=int, metavar="N", help="videos to train on, where there is no corpus")
    command.add_argument("--gpus", type=int, default=1, metavar="N", help="processes of the run; default: 1")
    command.add_argument(
        "--rate", type=float, metavar="R", help="steps/s that decoding is planned for; default: as measured, else 1"
    )
    command.add_argument(
        "--gop", type=int, default=12, metavar="N", help="frames from one key frame to the next; default: 12"
    )
    command.add_argument(
        "--measure", type=int, default=0, metavar="N", help="make N steps on this machine and estimate the time"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(command=_plan)


def _add_retrieve(commands: Any) -> None:
    command = commands.add_parser(
        "retrieve",
        help="score an encoder by nearest-neighbour retrieval",
        description="Score an encoder by nearest-neighbour retrieval: R@1/5/10/20/50 of the query split against the "
        "gallery split, as a table, as JSON and as a picture of queries and their neighbours.",
        epilog="Example: ascnet retrieve --checkpoint runs/ucf101 --corpus ucf101.parquet --untrained --baselines. "
        "The protocol is explained in docs/evaluation.md.",
    )
    options.add_encoder(command)
    options.add_corpus(command)
    command.add_argument("--untrained", action="store_true", help="score the same encoder with random weights as well")
    command.add_argument("--config", metavar="YAML", help="the encoder's configuration, where there is no checkpoint")
    command.add_argument("--baselines", action="store_true", help="score mean colour and motion energy as well")
    options.add_network(command)
    command.add_argument(
        "--query-split", metavar="SPLIT", default="test", help="split of the queries, or `all`; default: test"
    )
    command.add_argument(
        "--gallery-split", metavar="SPLIT", default="train", help="split of the gallery, or `all`; default: train"
    )
    command.add_argument(
        "--protocol",
        choices=("clean", "rspnet", "vcop", "coclr"),
        default="clean",
        help="how published tables were made, each in its own way (docs/evaluation.md); default: clean",
    )
    command.add_argument("--clips", type=int, default=10, metavar="N", help="clips per video; default: 10")
    options.add_clip(command)
    options.add_speed(command)
    command.add_argument(
        "--center", action="store_true", help="subtract the gallery's mean feature (not in the published protocol)"
    )
    options.add_forward(command, "scores")
    options.add_machine(command)
    command.add_argument("--seed", type=int, metavar="N", help="of the random weights; default: the configuration's")
    command.add_argument(
        "--published",
        action=argparse.BooleanOptionalAction,
        help="published UCF-101 rows below one's own; default: if the corpus has 101 classes",
    )
    command.add_argument(
        "--out", metavar="DIR", help="folder for retrieval.json and .png; default: `retrieve` in the run's folder"
    )
    command.add_argument(
        "--figure", action=argparse.BooleanOptionalAction, default=True, help="draw the picture; default: yes"
    )
    command.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep features in `features` in the run's folder, and find them there again; default: yes",
    )
    command.set_defaults(command=_retrieve)


def _add_import_weights(commands: Any) -> None:
    command = commands.add_parser(
        "import-weights",
        help="make a checkpoint of published weights",
        description="Make a checkpoint of published weights: torchvision's r3d_18, r2plus1d_18 and s3d, RSPNet's "
        "resnet18, s3dg, c3d and r2plus1d-vcop. Prints what became of every tensor; one that is missing, or known as "
        "nothing, is an error.",
        epilog="Example: ascnet import-weights r3d_18-b3b3357e.pth --from torchvision -o r3d18-kinetics.pt, then "
        "ascnet retrieve --checkpoint r3d18-kinetics.pt. docs/export.md has the details.",
    )
    command.add_argument("file", metavar="FILE", help="file of weights: .pt, .pth, .pth.tar or .safetensors")
    command.add_argument(
        "--from", dest="source", choices=("torchvision", "rspnet"), required=True, help="whose names the file uses"
    )
    command.add_argument("-o", "--output", metavar="OUT", required=True, help="the checkpoint to write (.pt)")
    command.add_argument("--keys", action="store_true", help="print every tensor's name, there and here")
    command.set_defaults(command=_import_weights)


def _add_export(commands: Any) -> None:
    command = commands.add_parser(
        "export",
        help="write the encoder alone, for use elsewhere",
        description="Write the encoder alone, for use elsewhere, and a card beside it (OUT.md). What was written is "
        "run and compared with the encoder in memory; where they differ, nothing is kept.",
        epilog="Example: ascnet export runs/ucf101 -o encoder.safetensors. docs/export.md shows how each is used.",
    )
    command.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a run's folder, a checkpoint (.pt) or an exported .safetensors file"
    )
    command.add_argument("-o", "--output", metavar="OUT", required=True, help="the file to write")
    command.add_argument(
        "--format",
        choices=("safetensors", "onnx", "torch"),
        help="default: by OUT's suffix, .safetensors, .onnx or .pt2 (torch.export)",
    )
    options.add_network(command)
    command.add_argument(
        "--frames", type=int, metavar="N", help="frames of a clip, fixed in onnx and torch; default: as pretrained"
    )
    command.add_argument(
        "--size", type=int, metavar="PIXELS", help="edge of a clip, fixed in onnx and torch; default: as pretrained"
    )
    command.set_defaults(command=_export)


def _add_demo(commands: Any) -> None:
    command = commands.add_parser(
        "demo",
        help="the whole job on generated videos, in about five minutes",
        description="The whole job on generated videos: make a small labelled corpus, index it, pretrain without the "
        "labels, retrieve test videos' neighbours, and set the trained encoder beside an untrained one.",
        epilog="Uses a GPU where there is one. A second run uses the same videos again and trains afresh.",
    )
    command.add_argument("--long", action="store_true", help="larger and longer, up to 40 CPU minutes")
    command.add_argument("--out", metavar="DIR", help="folder for everything; default: runs/demo or runs/demo-long")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of weights and draws; default: 0")
    command.add_argument("--corpus-seed", type=int, default=0, metavar="N", help="of the videos; default: 0")
    command.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="settings of the pretraining, as for `pretrain`"
    )
    command.set_defaults(command=_demo)


class _Version(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"ascnet {version('dali-pipes')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
