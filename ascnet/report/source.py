"""What a run's folder holds, read once for its page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ascnet import checkpoint
from ascnet.encoders import Encoder
from ascnet.errors import CheckpointError, UserError
from ascnet.evaluate.classifier import Classifier
from ascnet.evaluate.protocols import Protocol
from ascnet.report.results import RECOGNITION, RETRIEVAL, read_json
from ascnet.weights import load_encoder
from dali_pipes import Corpus, DataError

Rows = list[dict[str, Any]]
MODELS = ("best", "last")
"""Which model of a recognition is shown, if there is."""


@dataclass
class Source:
    """A run.

    Attributes:
        folder: Where it lies.
        config: Its settings, nested; empty where it has none.
        steps: Rows of metrics.jsonl.
        corpus: Its videos; None where the corpus file is not there.
        encoder: Its encoder; None where there is no checkpoint.
        classifier: A classifier with its own encoder, trained in `recognition_folder`; None where there is none.
        classes: Names of the classifier's outputs.
        seen: The clips that the classifier was trained with.
        weights: Which checkpoint these come from.
        retrieval: Content of retrieval.json.
        retrieval_file: That file, which the demo writes beside the run.
        recognition: Content of recognition.json.
        recognition_folder: Where that lies: the run, or a folder inside it.
        confusion: Classes, and counts (C, C) with a row for each true class.
        notes: What is missing, and why, in sentences.
    """

    folder: Path
    config: dict[str, Any]
    steps: Rows = field(default_factory=list)
    corpus: Corpus | None = None
    encoder: Encoder | None = None
    classifier: Classifier | None = None
    classes: list[str] = field(default_factory=list)
    seen: Protocol | None = None
    weights: str = ""
    retrieval: dict[str, Any] | None = None
    retrieval_file: Path | None = None
    recognition: dict[str, Any] | None = None
    recognition_folder: Path | None = None
    confusion: tuple[list[str], NDArray[np.int64]] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.resolve().name

    @property
    def kind(self) -> str:
        """What was done, in a word or two."""
        if "epochs" in self.config and "validation" in self.config:
            return "linear classification" if self.config["model"].get("frozen") else "fine-tuning"
        return "pretraining"

    def protocol(self, clips: int | None = None) -> Protocol:
        """Clips as the run's retrieval had them, else as it was trained with."""
        known = {one.name for one in fields(Protocol)}
        told: dict[str, Any] | None = (self.retrieval or {}).get("protocol")
        if isinstance(told, dict):
            values: dict[str, Any]
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items() if k in known}
            found = Protocol(**values)
        elif self.config:
            found = protocol_of(self.config)
        elif self.encoder is not None and self.encoder.config:
            found = protocol_of(self.encoder.config)
        else:
            raise UserError(f"{self.folder}: neither config.yaml nor the checkpoint says what clips the run was of")
        return found if clips is None else replace(found, clips=clips)


def open_run(folder: str | Path, corpus: str | None = None, recognition: str | None = None) -> Source:
    """Reads a run's folder.

    Args:
        folder: Of `ascnet pretrain`, `finetune` or `linear`.
        corpus: Corpus file; None: the one that the run names.
        recognition: Folder with a classifier; None: the run itself, or one inside it, where there is such.

    Raises:
        UserError: If it is no run's folder, or a file in it is damaged.
    """
    run = Path(folder)
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; --html needs the folder of one run")
    if not (run / "config.yaml").is_file() and not (run / "metrics.jsonl").is_file():
        inside = sorted(path.parent.name for path in run.glob("*/config.yaml"))
        hint = f"; there are runs in it: {', '.join(inside[:5])}" if inside else ""
        raise UserError(f"{run}: no run's folder: it holds neither config.yaml nor metrics.jsonl{hint}")
    source = Source(run, _settings(run / "config.yaml"))
    source.steps = _lines(run / "metrics.jsonl")
    if not source.steps:
        source.notes.append("There are no steps in metrics.jsonl, so there are no curves.")
    for path in (run / "retrieve" / RETRIEVAL, run / RETRIEVAL, run.parent / RETRIEVAL):
        # Beside a folder `pretrain` that the demo made.
        if path.is_file() and (path.parent != run.parent or run.name == "pretrain"):
            source.retrieval, source.retrieval_file = read_json(path), path
            break
    _read_recognition(source, recognition)
    _open_corpus(source, corpus)
    _open_weights(source)
    return source


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not a YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: not the settings of a run")
    return found


def _lines(path: Path) -> Rows:
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:  # the last line of a running or killed run may be half a line
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def _read_recognition(source: Source, given: str | None) -> None:
    own = [source.folder, *(path.parent for path in sorted(source.folder.glob(f"*/{RECOGNITION}")))]
    folder = next((one for one in own if (one / RECOGNITION).is_file()), None) if given is None else Path(given)
    if folder is None:
        return
    if not (folder / RECOGNITION).is_file():
        raise UserError(
            f"--recognition {folder}: no {RECOGNITION} in it; give a folder of `ascnet finetune` or `linear`"
        )
    source.recognition, source.recognition_folder = read_json(folder / RECOGNITION), folder
    counts = next((path for name in MODELS if (path := folder / f"confusion_{name}.json").is_file()), None)
    if counts is None:
        return
    content = read_json(counts)
    try:
        matrix, classes = np.array(content["counts"], np.int64), [str(one) for one in content["classes"]]
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{counts}: not a confusion matrix of `ascnet finetune`") from None
    if matrix.shape != (len(classes), len(classes)):
        raise UserError(f"{counts}: {matrix.shape} counts for {len(classes)} classes")
    source.confusion = classes, matrix


def _open_corpus(source: Source, given: str | None) -> None:
    if given is not None:
        source.corpus = Corpus.open(given)
        return
    told = [source.config.get("data", {}).get("corpus"), (source.retrieval or {}).get("corpus")]
    told += [str(source.folder.parent / "corpus.parquet")] if source.folder.name == "pretrain" else []
    named = [str(path) for path in told if path]
    why = f"The corpus file {named[0]} is not there" if named else "The run names no corpus file"
    for path in named:
        if Path(path).is_file():
            try:
                source.corpus = Corpus.open(path)
                return
            except DataError as error:
                why = str(error)
    source.notes.append(f"{why}, so no videos are shown; --corpus names another file.")


def _open_weights(source: Source) -> None:
    path = _checkpoint(source.folder)
    if path is None:
        source.notes.append("There is no checkpoint, so nothing is shown that needs the encoder.")
        return
    try:
        source.encoder = load_encoder(path)
        source.weights = f"checkpoints/{path.name}, step {checkpoint.load(path).get('step')}"
        of = None if source.recognition_folder is None else _checkpoint(source.recognition_folder)
        if of is not None:
            source.classifier, source.classes, config = _classifier(of)
            source.seen = protocol_of(config)
    except CheckpointError as error:
        source.notes.append(f"{error}, so not everything is shown that needs the network.")


def _checkpoint(folder: Path) -> Path | None:
    paths = [folder / "checkpoints" / f"{name}.pt" for name in MODELS]
    return next((path for path in paths if path.is_file()), None)


def _classifier(path: Path) -> tuple[Classifier, list[str], dict[str, Any]]:
    payload = checkpoint.load(path)
    if "classes" not in payload:
        raise CheckpointError(f"{path}: no checkpoint of `ascnet finetune` or `linear`")
    model = payload["config"]["model"]
    frozen, dropout, norm = model["frozen"], model["dropout"], model["norm"]
    classifier = Classifier(load_encoder(path), len(payload["classes"]), frozen=frozen, dropout=dropout, norm=norm)
    classifier.load_weights(payload["model"])
    return classifier.eval(), list(payload["classes"]), payload["config"]


def protocol_of(config: dict[str, Any]) -> Protocol:
    """Clips as a run was trained with."""
    data, colours = config["data"], config["data"]["augment"]
    given: dict[str, Any] = {name: tuple(colours[name]) for name in ("mean", "std") if colours.get(name)}
    # A video that training skipped is shown all the same.
    given["short"] = "pad" if data.get("short") == "pad" else "loop"
    given["speed"] = data.get("speed", 1.0)
    return Protocol(frames=data["frames"], size=data["size"], fps=data["fps"], **given)
