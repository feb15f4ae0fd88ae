"""Finds the scores that runs left behind, and says of each what it is a score of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ascnet.errors import UserError
from ascnet.report.published import HMDB51, UCF101, data_set
from ascnet.settings import flatten

Task = Literal["retrieval", "finetune", "linear"]
RETRIEVAL, RECOGNITION = "retrieval.json", "recognition.json"
DEPTH = 3
"""How many folders below the one given are looked into."""
MODELS = ("last", "best")

ENCODERS = {"r3d18": "3D R18", "s3dg": "S3D-G", "c3d": "C3D", "r2plus1d": "R(2+1)D", "r3d10": "3D R10"}

# Settings without influence on what is learnt, or with an influence that averaging over runs is about.
_FREE = (
    "seed", "device", "log", "checkpoint", "log_interval", "checkpoint_interval", "keep", "data.corpus", "data.threads",
    "data.graph_threads", "data.processes", "data.prefetch", "data.decoder", "model.checkpoint", "test.batch_size",
    "retrieval.placement",
)  # fmt: skip
# Queries and gallery of UCF-101's three official splits, and of HMDB-51's.
_OFFICIAL = {
    "ucf101": (UCF101, {(9537, 3783), (9586, 3734), (9624, 3696)}),
    "hmdb51": (HMDB51, {(3570, 1530)}),
}


@dataclass(frozen=True)
class Result:
    """Scores of one run on one split.

    Attributes:
        task: What was done.
        data: Name of the data set.
        corpus: Fingerprint of the videos, where the name alone does not say which they are; else "".
        part: What is unusual about the comparison, such as its splits; "" for the usual one.
        method: What was trained, without a run's name: "pretrained", "untrained", ...
        run: Name of the run; "" where none was trained.
        encoder: Architecture as tables print it.
        values: Scores in percent, by column.
        same: Equal for runs that may be averaged: all settings but the seed.
        line: Equal for results that stand in one row of a table, each under its own data set.
        card: The protocol card.
        own: What tells this score from others of the same kind: a second copy is not another run.
    """

    task: Task
    data: str
    corpus: str
    part: str
    method: str
    run: str
    encoder: str
    values: dict[str, float]
    same: str
    line: str
    card: dict[str, Any]
    own: str


def find(paths: Sequence[str | os.PathLike[str]]) -> list[Result]:
    """All scores of some runs.

    Args:
        paths: Folders of runs, folders of such folders, or retrieval.json and recognition.json files.

    Raises:
        UserError: If one of them holds no scores, or a file is damaged.
    """
    files: dict[Path, None] = {}
    for given in paths:
        path = Path(given)
        if not path.exists():
            raise UserError(f"{path}: no such file or folder; give a run's folder")
        found = [path] if path.is_file() else list(files_of(path))
        if not found:
            raise UserError(
                f"{path}: no scores in it ({RETRIEVAL} or {RECOGNITION}); `ascnet retrieve --checkpoint {path} ...`, "
                "`ascnet finetune` and `ascnet linear` write them"
            )
        files |= dict.fromkeys(file.resolve() for file in found)
    results: list[Result] = []
    for file in files:
        results += _read(file)
    unique = {(result.own, result.method, result.part): result for result in results}
    return list(unique.values())


def files_of(folder: Path) -> Iterator[Path]:
    """Files of scores in a folder and below."""
    for depth in range(DEPTH + 1):
        for name in (RETRIEVAL, RECOGNITION):
            yield from sorted(folder.glob("/".join([*["*"] * depth, name])))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        UserError: If it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not a JSON file of scores ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a file of scores; `ascnet retrieve` writes {RETRIEVAL}")
    return content


def _read(path: Path) -> list[Result]:
    content = read_json(path)
    try:
        if "recall" in content:
            return _retrieval(path, content)
        if "folds" in content:
            return _folds(path, content)
        if "last" in content:
            return _recognition(path, content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path}: scores that cannot be read ({type(error).__name__}: {error})") from None
    raise UserError(f"{path}: neither scores of retrieval (key 'recall') nor of recognition (key 'last')")


def _folds(path: Path, content: Mapping[str, Any]) -> list[Result]:
    """Those of each split; the average is made again here, over all runs."""
    found = [path.parent / str(name) for name in content["runs"].values()]
    lost = [file for file in found if not file.is_file()]
    if lost:
        raise UserError(f"{path} is an average over splits, and {lost[0]} is not there; keep the folders together")
    return [result for file in found for result in _read(file.resolve())]


def _retrieval(path: Path, content: Mapping[str, Any]) -> list[Result]:
    protocol = dict(content["protocol"])
    checkpoint = content.get("checkpoint")
    config = _config([Path(str(checkpoint))] if checkpoint else [], path.parent)
    data = _data_of_corpus(content)
    splits = protocol.get("query_split") or "all", protocol.get("gallery_split") or "all"
    listing = content.get("listing") or {}
    parts = [] if splits == ("test", "train") else [f"{splits[0]} against {splits[1]}"]
    # The published rows are of the first of the official splits.
    parts += [f"split {listing['fold']}"] if data == UCF101 and listing.get("fold", 1) != 1 else []
    missing = sum(count for split, count in listing.get("missing", {}).items() if split in splits)
    encoder = encoder_name(config)
    # With the seed of a gallery that nothing is drawn for, the same protocol would seem another one.
    shown = {name: value for name, value in protocol.items() if name not in ("differences", "seed")}
    card = {
        "data": _data_line(content),
        "split": f"{splits[0]} ({content['queries']} queries) against {splits[1]} ({content['gallery']} videos)",
        "clips": f"{protocol['clips']} of {protocol['frames']} frames at {protocol['speed']:g}x, "
        f"{protocol['size']} x {protocol['size']}"
        + ("" if protocol.get("fps") is None else f", 1x = {protocol['fps']:g} frames/s"),
        "crop": str(protocol.get("crop", "centre")),
        "protocol": str(protocol.get("name", "clean")),
        "unlike clean": "; ".join(protocol.get("differences", [])) or None,
        "seeds": None if config is None else config.get("seed"),
        "commit": content.get("commit"),
        "command": content.get("command"),
        "file": str(path),
    }
    origin = origin_of(config, str(checkpoint))
    results = []
    for name, recalls in content["recall"].items():
        learnt = name in ("pretrained", "untrained")
        if name == "untrained":
            origin = json.dumps((config or {}).get("model"), sort_keys=True) if config else origin
        about = [name, origin if learnt else "", shown]
        results.append(
            Result(
                task="retrieval",
                data=data,
                corpus="" if data in (UCF101, HMDB51) else str(content["corpus_fingerprint"]),
                part=", ".join(parts),
                method=f"{name} ({missing} videos missing)" if missing else name,
                run=_run_name(checkpoint, path) if name == "pretrained" else "",
                encoder=encoder if learnt else "",
                values={column: float(value) for column, value in recalls.items()},
                same=json.dumps([*about, content["queries"], content["gallery"]], sort_keys=True),
                line=json.dumps(about, sort_keys=True),
                card=card if learnt else {**card, "seeds": None},
                own=str(path) if learnt else json.dumps([content["corpus_fingerprint"], shown], sort_keys=True),
            )
        )
    return results


def _recognition(path: Path, content: Mapping[str, Any]) -> list[Result]:
    told, settings = dict(content["protocol"]), dict(content["config"])
    model = settings["model"]
    config = _config([Path(model["checkpoint"])], None) if model.get("checkpoint") else None
    origin = origin_of(config, model["checkpoint"]) if model.get("checkpoint") else "random weights"
    classes = list(content["last"]["per_class"])
    data = data_set(classes) or _stem(told.get("corpus", ""), told.get("fold"))
    models = [name for name in MODELS if name in content]
    if len(models) == 2 and content["best"]["epoch"] == content["last"]["epoch"]:
        models = ["last"]
    clips, _, crop = str(told["test_views"]).partition(" x ")
    crop, _, average = crop.partition(", ")
    card = {
        "data": f"{told.get('corpus') or data} ({told.get('corpus_fingerprint')}), {told.get('classes')} classes",
        "split": f"test {told['test']}; trained on {told['train']}; chosen on {told['chosen_on']}"
        + (f"; official split {told['fold']}" if "fold" in told else ""),
        "clips": f"{clips} of {told['clip']}, {average}",
        "crop": crop,
        "protocol": told.get("name"),
        "training": f"{told.get('task')}; {told.get('epochs')} epochs, batch {told.get('total_batch')}, "
        f"lr {told.get('peak_lr'):g} {told.get('schedule')}",
        "seeds": told.get("seed"),
        "commit": told.get("commit"),
        "command": told.get("command"),
        "file": str(path),
    }
    same = _without_free(settings)
    results = []
    for name in models:
        from_scratch = not model.get("checkpoint")
        by = {"last": "last epoch", "best": "best epoch by validation"}[name]
        results.append(
            Result(
                task="linear" if model.get("frozen") else "finetune",
                data=data,
                corpus="" if data in (UCF101, HMDB51) or "fold" in told else str(told.get("corpus_fingerprint")),
                part="",
                method=f"{'random start' if from_scratch else 'pretrained'}, {by}",
                run="" if from_scratch else _run_name(model["checkpoint"], path),
                encoder=encoder_name(settings),
                values={
                    column: float(content[name][key])
                    for column, key in (("top-1", "top1"), ("top-5", "top5"), ("mean over classes", "mean_class"))
                    if key in content[name]
                },
                same=json.dumps([origin, name, same, told.get("classes")], sort_keys=True),
                line=json.dumps([origin, name, model.get("frozen"), settings.get("protocol")], sort_keys=True),
                card=card,
                own=str(path),
            )
        )
    return results


def encoder_name(config: Mapping[str, Any] | None) -> str:
    """The architecture as tables print it; "" where it is not known."""
    if config is None or not config.get("model", {}).get("encoder"):
        return ""
    model = config["model"]
    name = ENCODERS.get(model["encoder"], str(model["encoder"]))
    return name if model.get("width", 1.0) == 1 else f"{name}, width x {model['width']:g}"


def origin_of(config: Mapping[str, Any] | None, checkpoint: str) -> str:
    """Equal for weights that come from the same training but for the seed."""
    return checkpoint if config is None else json.dumps(_without_free(config), sort_keys=True)


def _without_free(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = flatten(config)
    return {k: v for k, v in flat.items() if not any(k == name or k.startswith(f"{name}.") for name in _FREE)}


def _config(checkpoints: Sequence[Path], beside: Path | None) -> dict[str, Any] | None:
    """The configuration of the run that the weights come from, None where it cannot be found."""
    places = []
    for path in checkpoints:
        places += [path, path.parent, path.parent.parent] if path.suffix else [path]
    if beside is not None:
        places += [beside.parent, beside / "pretrain"] if beside.name == "retrieve" else [beside, beside / "pretrain"]
    for folder in places:
        if (folder / "config.yaml").is_file():
            try:
                found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            except (yaml.YAMLError, OSError):
                continue
            if isinstance(found, dict):
                return found
    return None


def _data_of_corpus(content: Mapping[str, Any]) -> str:
    """The data set's name: by its classes where the corpus is there, else by the official lists it was made with."""
    from dali_pipes import Corpus, DataError

    path = Path(str(content.get("corpus", "")))
    if path.is_file():
        try:
            corpus = Corpus.open(path)
            if corpus.fingerprint == content.get("corpus_fingerprint"):
                return data_set(corpus.classes) or _stem(path, None)
        except DataError:
            pass
    listing = content.get("listing") or {}
    name, official = _OFFICIAL.get(listing.get("layout", ""), ("", set()))
    listed = listing.get("listed", {})
    return name if (listed.get("train"), listed.get("test")) in official else _stem(path, None)


def _data_line(content: Mapping[str, Any]) -> str:
    told = [f"{content.get('corpus')} ({content.get('corpus_fingerprint')})"]
    # The first line of the card is the protocol itself.
    told += [str(line) for line in content.get("card", [])[1:]]
    if "card" not in content and content.get("left_out"):
        told.append(f"{len(content['left_out'])} videos left out")
    return "; ".join(told)


def _stem(corpus: str | os.PathLike[str], fold: Any) -> str:
    stem = Path(corpus).stem or "unnamed corpus"
    # ucf101-1.parquet, ucf101-2.parquet: splits of the same data set.
    return stem.removesuffix(str(fold)).rstrip("-_. ") or stem if fold is not None else stem


def _run_name(checkpoint: Any, path: Path) -> str:
    if not checkpoint:
        return path.parent.name
    found = Path(str(checkpoint))
    if found.suffix == ".pt" and found.parent.name == "checkpoints":
        found = found.parent.parent
    return found.stem if found.suffix else found.name
