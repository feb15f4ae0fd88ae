"""What `ascnet retrieve` does: score one or more kinds of features of one corpus, and say so in three forms."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ascnet.cli import find_config
from ascnet.config import Config
from ascnet.errors import UserError
from ascnet.evaluate.baselines import chance, describe
from ascnet.evaluate.figures import contact_sheet
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.run import Retrieval, evaluate, retrieve, split_rows, untrained_encoder
from ascnet.evaluate.tables import recall_table, write_json
from ascnet.precision import pick_device
from ascnet.weights import load_encoder
from dali_pipes import Corpus


def retrieve_command(args: argparse.Namespace) -> int:
    """Run `ascnet retrieve` with its parsed arguments."""
    trained, config = _encoder(args)
    corpus = Corpus.open(args.corpus)
    protocol = protocol_of(
        config,
        clips=args.clips,
        speed=args.speed,
        center=args.center,
        precision=args.precision,
        query_split=_split(args.query_split),
        gallery_split=_split(args.gallery_split),
        **{name: value for name in ("frames", "size") if (value := getattr(args, name)) is not None},
    )
    encoders: dict[str, nn.Module] = {}
    if args.untrained:
        encoders["untrained"] = untrained_encoder(config, args.seed)
    if trained is not None:
        encoders["pretrained"] = trained
    results = compare(
        encoders,
        corpus,
        protocol,
        device=pick_device(args.device),
        batch_size=args.batch_size,
        threads=args.threads,
        baselines=args.baselines,
    )
    published = args.published if args.published is not None else len(corpus.classes) == 101
    out = Path(args.out) if args.out is not None else _home(args.checkpoint) / "retrieve"
    notes = {"corpus": str(Path(args.corpus).resolve()), "checkpoint": args.checkpoint, "network": args.network}
    show(results, corpus, protocol, title="Nearest-neighbour retrieval", published=published)
    files = [save(out / "retrieval.json", results, corpus, protocol, notes)]
    if args.figure:
        best = results[list(encoders)[-1]]
        assert best is not None
        files.append(
            contact_sheet(out / "retrieval.png", corpus, best.found, best.queries, best.gallery, title=_title(args))
        )
    Console(highlight=False).print(*[f"wrote {path}" for path in files], sep="\n", markup=False, soft_wrap=True)
    return 0


Results = Mapping[str, "Retrieval | None"]
"""Retrieval by name of the features, in the order to show; None: chance, which retrieves nothing in particular."""


def compare(
    encoders: Mapping[str, nn.Module],
    corpus: Corpus,
    protocol: Protocol,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 40,
    threads: int | None = None,
    baselines: bool = False,
    progress: bool = True,
) -> dict[str, Retrieval | None]:
    """Score several encoders, and what needs no learning, under one protocol.

    Args:
        encoders: By the name to show.
        corpus: The videos.
        protocol: How.
        device: Where the encoders run.
        batch_size: Clips in a forward pass.
        threads: Decoding threads.
        baselines: Whether mean colour and motion energy are scored as well.
        progress: Whether to show progress.
    """
    if batch_size < 1:
        raise UserError(f"batch-size={batch_size} must be at least 1")
    results: dict[str, Retrieval | None] = {"chance": None}
    if baselines:
        query, gallery = split_rows(corpus, protocol)
        rows = [*query, *(row for row in gallery if row not in set(query))]
        for name, features in describe(corpus, rows, progress=progress).items():
            results[f"{name}, no learning"] = retrieve(features, corpus, protocol)
    for name, encoder in encoders.items():
        results[name] = evaluate(
            encoder, corpus, protocol, device=device, batch_size=batch_size, threads=threads, progress=progress
        )
    return results


def recalls(results: Results, corpus: Corpus, protocol: Protocol) -> dict[str, dict[int, float]]:
    """R@k in percent by name; chance is computed over the videos that the other rows were scored on."""
    first = next(result for result in results.values() if result is not None)
    exact = chance(corpus.labels[first.queries], corpus.labels[first.gallery], protocol.ks)
    return {name: exact if result is None else result.recalls for name, result in results.items()}


def show(results: Results, corpus: Corpus, protocol: Protocol, *, title: str, published: bool = False) -> None:
    """Print the table, the protocol below it, and which videos were left out."""
    first = next(result for result in results.values() if result is not None)
    console = Console(highlight=False)
    console.print(
        recall_table(
            recalls(results, corpus, protocol),
            title=title,
            queries=len(first.queries),
            gallery=len(first.gallery),
            caption=protocol.card(),
            published=published,
        )
    )
    for row, why in first.failed.items():
        console.print(f"left out: {corpus[row].uri}: {why}", markup=False, soft_wrap=True)


def save(path: Path, results: Results, corpus: Corpus, protocol: Protocol, notes: Mapping[str, Any]) -> Path:
    """Write scores, protocol and what was left out as JSON."""
    first = next(result for result in results.values() if result is not None)
    scores = recalls(results, corpus, protocol)
    content: dict[str, Any] = {
        **notes,
        "corpus_fingerprint": corpus.fingerprint,
        "protocol": protocol.as_dict(),
        "queries": len(first.queries),
        "gallery": len(first.gallery),
        "left_out": {corpus[row].uri: why for row, why in first.failed.items()},
        "recall": {name: {f"R@{k}": round(value, 4) for k, value in row.items()} for name, row in scores.items()},
    }
    return write_json(path, content)


def protocol_of(config: Mapping[str, Any], **changes: Any) -> Protocol:
    """The default protocol with the clip of a run's configuration, and further changes."""
    data = config["data"]
    settings = {"frames": data["frames"], "size": data["size"], "fps": data["fps"]}
    # A video that training skipped has to be scored all the same.
    settings["short"] = "pad" if data["short"] == "pad" else "loop"
    settings |= {name: tuple(data["augment"][name]) for name in ("mean", "std")}
    return Protocol(**{**settings, **changes})


def _encoder(args: argparse.Namespace) -> tuple[nn.Module | None, dict[str, Any]]:
    if args.checkpoint is not None:
        encoder = load_encoder(args.checkpoint, network=args.network)
        return encoder, encoder.config or {}
    return None, Config.load(find_config(args.config)).to_dict()


def _split(name: str) -> str:
    return "" if name == "all" else name


def _home(checkpoint: str | None) -> Path:
    """The folder of the run that a checkpoint belongs to."""
    if checkpoint is None:
        return Path("runs") / "untrained"
    path = Path(checkpoint)
    folder = path if path.is_dir() else path.parent
    return folder.parent if folder.name == "checkpoints" else folder


def _title(args: argparse.Namespace) -> str:
    return f"Nearest neighbours by the features of {args.checkpoint or 'an untrained encoder'}"
