"""What `ascnet finetune` and `ascnet linear` do, for one split or for several."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ascnet.cli import find_config
from ascnet.errors import ConfigError, UserError
from ascnet.evaluate.provenance import provenance
from ascnet.evaluate.recognise import recognise
from ascnet.evaluate.recognise_config import FOLD, RecogniseConfig
from ascnet.evaluate.recognise_report import MODELS, average_folds
from ascnet.evaluate.tables import write_json
from ascnet.training.interrupt import STATUS
from dali_pipes import Corpus


def recognise_command(args: argparse.Namespace) -> int:
    """Run `ascnet finetune` or `ascnet linear` with its parsed arguments."""
    config, name = settings(args)
    if args.print_config:
        print(config.to_yaml(), end="")
        return 0
    if not config.data.corpus:
        raise UserError("no corpus: say corpus=PATH (the file that `dali-pipes index` writes)")
    out = Path(args.out if args.out is not None else f"runs/{name}")
    console = Console(stderr=True, highlight=False)

    first = os.environ.get("RANK", "0") == "0"

    def say(text: str) -> None:
        if first:
            console.print(text, markup=False, soft_wrap=True)

    options: dict[str, Any] = {"max_minutes": args.max_minutes, "say": say}
    if not args.folds:
        if FOLD in config.data.corpus:
            raise ConfigError(
                f"data.corpus is {config.data.corpus!r}: say which splits {FOLD} stands for, --folds 1 2 3"
            )
        corpus = Corpus.open(config.data.corpus)
        result = recognise(config, corpus, out, resume=args.resume, **options)
        return STATUS.get(result["stopped_by"], 0)
    if len(args.folds) > 1 and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Processes that have parted cannot meet again under the same torchrun.
        raise ConfigError(
            f"--folds {' '.join(map(str, args.folds))}: with several processes one split at a time; start torchrun "
            "once for each, with the same --out, whose recognition.json has the average of the splits that are there"
        )
    folds = {fold: config.of_fold(fold) for fold in args.folds}
    corpora = {fold: Corpus.open(of_fold.data.corpus) for fold, of_fold in folds.items()}
    for fold, of_fold in folds.items():
        say(f"split {fold} of {', '.join(map(str, folds))}")
        result = recognise(
            of_fold, corpora[fold], out / f"fold{fold}", resume=args.resume, notes={"fold": fold}, **options
        )
        if result["stopped_by"]:
            return STATUS.get(result["stopped_by"], 0)
    if first:
        average(out, say)
    return 0


def average(out: Path, say: Callable[[str], None]) -> Path:
    """Writes OUT/recognition.json, the average over the splits that lie in OUT/fold1, OUT/fold2 and so on."""
    results = {}
    for path in out.glob("fold*/recognition.json"):
        number = path.parent.name.removeprefix("fold")
        if number.isdigit():
            results[int(number)] = json.loads(path.read_text(encoding="utf-8"))
    results = dict(sorted(results.items()))
    found = average_folds(results)
    last = next(reversed(results.values()))
    path = write_json(
        out / "recognition.json",
        {
            "protocol": {**last["protocol"], "fold": list(results), **provenance()},
            **found,
            "runs": {str(fold): f"fold{fold}/recognition.json" for fold in results},
        },
    )
    for model in MODELS:
        if model in found:
            top1 = found[model]["top1"]
            spread = "" if top1["std"] is None else f" (standard deviation {top1['std']:.2f})"
            say(f"{model}: top-1 {top1['mean']:.2f} % over splits {', '.join(map(str, results))}{spread}")
    say(f"wrote {path}")
    return path


def settings(args: argparse.Namespace) -> tuple[RecogniseConfig, str]:
    """The configuration that the arguments ask for, and its name."""
    path: str | None = args.config
    if path is not None:
        path = str(find_config(path))
    elif args.resume and args.out is not None and (Path(args.out) / "config.yaml").is_file():
        path = str(Path(args.out) / "config.yaml")
    overrides = list(args.overrides)
    if args.checkpoint is not None:
        overrides.append(f"model.checkpoint={args.checkpoint}")
    if args.protocol is not None:
        overrides.append(f"protocol={args.protocol}")
    config = RecogniseConfig.load(path, overrides)
    # The command says what is trained; a recipe of the other kind would otherwise do something else than asked for.
    frozen = args.frozen
    if config.model.frozen and not frozen:
        raise ConfigError(f"{path}: model.frozen is true, which is `ascnet linear`; finetune trains all weights")
    return replace(config, model=replace(config.model, frozen=frozen)), Path(path).stem if path else "recognise"
