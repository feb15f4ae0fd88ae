"""What `ascnet retrieve` does: score one or more kinds of features of one corpus, and say so in three forms."""

from __future__ import annotations

import argparse
import json
import os
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
from ascnet.evaluate.protocols import PROTOCOLS, Protocol
from ascnet.evaluate.provenance import provenance
from ascnet.evaluate.run import Retrieval, evaluate, retrieve, split_rows, untrained_encoder
from ascnet.evaluate.tables import recall_table, write_json
from ascnet.parallel.distributed import World
from ascnet.weights import load_encoder
from dali_pipes import Corpus


def retrieve_command(args: argparse.Namespace) -> int:
    """Run `ascnet retrieve` with its parsed arguments."""
    # Before the processes meet: a mistake is told at once, and nobody waits for anybody.
    trained, config = _encoder(args)
    corpus = Corpus.open(args.corpus)
    protocol = _protocol(args, config)
    split_rows(corpus, protocol)
    encoders: dict[str, nn.Module] = {}
    if args.untrained:
        encoders["untrained"] = untrained_encoder(config, args.seed)
    if trained is not None:
        encoders["pretrained"] = trained
    with World.join(args.device) as world:
        results = compare(
            encoders,
            corpus,
            protocol,
            device=world.device,
            batch_size=args.batch_size,
            threads=args.threads,
            baselines=args.baselines,
            cache=_home(args.checkpoint) / "features" if args.cache and args.checkpoint is not None else None,
            world=world,
        )
        if not world.is_first:
            return 0
        published = args.published if args.published is not None else len(corpus.classes) == 101
        out = Path(args.out) if args.out is not None else _home(args.checkpoint) / "retrieve"
        notes = {"corpus": str(Path(args.corpus).resolve()), "checkpoint": args.checkpoint, "network": args.network}
        show(results, corpus, protocol, title="Nearest-neighbour retrieval", published=published)
        files = [save(out / "retrieval.json", results, corpus, protocol, notes | provenance())]
        if args.figure:
            best = results[list(encoders)[-1]]
            assert best is not None
            files.append(
                contact_sheet(out / "retrieval.png", corpus, best.found, best.queries, best.gallery, title=_title(args))
            )
        Console(highlight=False).print(*[f"wrote {path}" for path in files], sep="\n", markup=False, soft_wrap=True)
    return 0


def _protocol(args: argparse.Namespace, config: Mapping[str, Any]) -> Protocol:
    """The protocol named, with what was said besides laid over it."""
    changes = {name: value for name in ("frames", "size") if (value := getattr(args, name)) is not None}
    if args.center:
        changes["center"] = True
    return protocol_of(
        config,
        args.protocol,
        clips=args.clips,
        speed=args.speed,
        precision=args.precision,
        query_split=_split(args.query_split),
        gallery_split=_split(args.gallery_split),
        **changes,
    )


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
    cache: str | os.PathLike[str] | None = None,
    world: World | None = None,
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
        cache: Folder of features made earlier, and to be found again; None: none.
        world: All processes of the run; the first one has the scores. None: this one alone.
    """
    if batch_size < 1:
        raise UserError(f"batch-size={batch_size} must be at least 1")
    results: dict[str, Retrieval | None] = {"chance": None}
    if baselines and (world is None or world.is_first):
        query, gallery = split_rows(corpus, protocol)
        rows = [*query, *(row for row in gallery if row not in set(query))]
        for name, features in describe(corpus, rows, progress=progress).items():
            results[f"{name}, no learning"] = retrieve(features, corpus, protocol)
    for name, encoder in encoders.items():
        results[name] = evaluate(
            encoder,
            corpus,
            protocol,
            device=device,
            batch_size=batch_size,
            threads=threads,
            progress=progress,
            cache=cache,
            world=world,
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
            caption="\n".join([protocol.card(), *completeness(corpus, protocol, first)]),
            published=published,
        )
    )
    for row, why in first.failed.items():
        console.print(f"left out: {corpus[row].uri}: {why}", markup=False, soft_wrap=True)


def completeness(corpus: Corpus, protocol: Protocol, result: Retrieval) -> list[str]:
    """What of the data set was not there, could not be decoded or was dropped, one line each where there is such."""
    lines = []
    splits = dict.fromkeys((protocol.gallery_split, protocol.query_split))
    if corpus.listing is not None:
        listed = list(splits) if "" not in splits else [name for name in sorted(corpus.listing.listed) if name]
        told = [share for split in listed if (share := corpus.listing.share(split))]
        if corpus.listing.surplus:
            told.append(f"{corpus.listing.surplus} videos in no list")
        lines.append(f"data: {', '.join(told)}")
    split = corpus.column("split")
    broken = sum(int((~corpus.usable & ((split == name) if name else True)).sum()) for name in splits)
    if broken:
        lines.append(f"{broken} videos that the index found unusable are left out")
    if result.failed:
        lines.append(f"{len(result.failed)} videos that could not be decoded are left out")
    gone = {who: len(rows) for who, rows in result.dropped.items() if rows}
    if gone:
        lines.append(f"dropped with an incomplete batch: {', '.join(f'{n} of the {who}' for who, n in gone.items())}")
    return lines


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
        "card": [protocol.card(), *completeness(corpus, protocol, first)],
        "listing": None if corpus.listing is None else json.loads(corpus.listing.dumps()),
        "left_out": {corpus[row].uri: why for row, why in first.failed.items()},
        "dropped": {who: [corpus[row].uri for row in rows] for who, rows in first.dropped.items()},
        "recall": {name: {f"R@{k}": round(value, 4) for k, value in row.items()} for name, row in scores.items()},
    }
    return write_json(path, content)


def protocol_of(config: Mapping[str, Any], name: str = "clean", **changes: Any) -> Protocol:
    """A published protocol with the clip of a run's configuration where it says nothing of it, and further changes."""
    data = config["data"]
    settings = {"frames": data["frames"], "size": data["size"], "fps": data["fps"]}
    # A video that training skipped has to be scored all the same.
    settings["short"] = "pad" if data["short"] == "pad" else "loop"
    settings |= {key: tuple(data["augment"][key]) for key in ("mean", "std")}
    return Protocol(**{**settings, "name": name, **PROTOCOLS.get(name, {}), **changes})


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
