"""What `ascnet embed` does: features of a whole corpus, at the pace of the loader, into one file."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from torch import nn

from ascnet import checkpoint
from ascnet.encoders import Encoder
from ascnet.errors import UserError
from ascnet.evaluate.command import protocol_of
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.store import weights_digest
from ascnet.precision import pick_device
from ascnet.search.describe import Described, describe, open_stream
from ascnet.search.feature_file import FeatureFile, refuse_to_harm, write
from ascnet.search.parts import Part, Parts
from ascnet.search.recipe import Recipe
from ascnet.weights import load_encoder
from dali_pipes import Corpus, Progress

# Clips in a part: at most so many are described again after an interruption.
_PART_CLIPS = 10_000


def embed_command(args: argparse.Namespace) -> int:
    """Run `ascnet embed` with its parsed arguments."""
    target = Path(args.output)
    refuse_to_harm(target)
    corpus = Corpus.open(args.corpus)
    encoder = load_encoder(args.checkpoint, network=args.network)
    changes = {name: value for name in ("frames", "size") if (value := getattr(args, name)) is not None}
    protocol = protocol_of(
        encoder.config or {}, clips=args.clips, speed=args.speed, precision=args.precision, **changes
    )
    recipe = recipe_of(
        encoder,
        args.checkpoint,
        corpus,
        args.corpus,
        protocol,
        network=args.network,
        split="" if args.split == "all" else args.split,
        per_clip=args.per_clip,
        device=args.device,
    )
    console = Console(highlight=False)
    if not args.again and (made := _made(target, recipe)) is not None:
        say(console, made, "is up to date")
        return 0
    found = embed(
        encoder,
        corpus,
        recipe,
        target,
        device=args.device,
        batch_size=args.batch_size,
        threads=args.threads,
        again=args.again,
    )
    say(console, found, "written")
    return 0


def recipe_of(
    encoder: Encoder,
    path: str | Path,
    corpus: Corpus,
    corpus_path: str | Path,
    protocol: Protocol,
    *,
    network: str = "online",
    split: str = "",
    per_clip: bool = False,
    device: str = "auto",
) -> Recipe:
    """What the features will depend on, to be written with them."""
    return Recipe(
        weights=weights_digest(encoder),
        # The file itself: `last.pt` of a run may be another one tomorrow, which the digest then tells.
        checkpoint=str(checkpoint.find(path).resolve()),
        network=network,
        corpus=str(Path(corpus_path).resolve()),
        fingerprint=corpus.fingerprint,
        split=split,
        per_clip=per_clip,
        protocol=protocol.recipe("query"),
        device=pick_device(device).type,
    )


def embed(
    encoder: nn.Module,
    corpus: Corpus,
    recipe: Recipe,
    target: str | Path,
    *,
    device: str = "auto",
    batch_size: int = 40,
    threads: int | None = None,
    decoder: Literal["auto", "dali", "host"] = "auto",
    part_videos: int | None = None,
    again: bool = False,
    progress: bool = True,
) -> FeatureFile:
    """Describe a corpus. Memory does not grow with it; what was made before an interruption is not made again.

    Args:
        encoder: As for `describe`.
        corpus: The videos.
        recipe: From `recipe_of`.
        target: The file to write, .parquet or .npy.
        device: Where the encoder runs and the clips are made.
        batch_size: Clips in a forward pass; it changes speed and memory, not the result.
        threads: As for `dali_pipes.ClipStream`.
        decoder: As for `dali_pipes.ClipStream`.
        part_videos: Videos in a part; None: chosen by the clips of each.
        again: Whether parts made earlier are thrown away.
        progress: Whether to show progress.

    Returns:
        The file.

    Raises:
        UserError: No video is usable or can be decoded, the file would replace something else, or an earlier attempt
            was made with another recipe.
    """
    target = Path(target)
    refuse_to_harm(target)
    if batch_size < 1:
        raise UserError(f"batch-size={batch_size} must be at least 1")
    rows = np.sort(np.asarray(corpus.select(recipe.split or None), np.int64))
    if not len(rows):
        raise UserError(f"{recipe.corpus}: no usable video; see its column 'error'")
    protocol = recipe.clips()
    if again:
        _discard(target)
    parts = Parts(target, recipe, rows, part_videos or max(1, _PART_CLIPS // protocol.clips))
    todo = parts.missing()
    if todo:
        where = pick_device(device)
        with (
            torch.inference_mode(),
            open_stream(
                corpus, protocol, device=where, batch_size=batch_size, threads=threads, decoder=decoder
            ) as stream,
            Progress("embed", len(rows), enabled=progress) as meter,
        ):
            meter.done = len(rows) - sum(len(parts.of(number)) for number in todo)
            described = describe(encoder.eval().to(where), stream, _rows(parts, todo), protocol, batch_size=batch_size)
            _collect(described, parts, recipe, meter)
    found = write(target, recipe, corpus, parts)
    parts.remove()
    return found


def _rows(parts: Parts, numbers: list[int]) -> Iterator[int]:
    for number in numbers:
        yield from parts.of(number).tolist()


def _collect(described: Iterator[Described], parts: Parts, recipe: Recipe, meter: Progress) -> None:
    """Save each part as soon as all of it is there; a few batches may run ahead of it into the next."""
    speed = float(recipe.protocol["speed"])
    held: dict[int, list[Described]] = {}
    for one in described:
        number = int(np.searchsorted(parts.rows, one.row)) // parts.size
        held.setdefault(number, []).append(one)
        meter.advance()
        if len(held[number]) == len(parts.of(number)):
            parts.save(number, Part.of(held.pop(number), per_clip=recipe.per_clip, speed=speed))


def _made(target: Path, recipe: Recipe) -> FeatureFile | None:
    """The file, where it is already what is asked for."""
    try:
        found = FeatureFile.open(target)
    except UserError:
        return None
    return found if not recipe.differences(found.recipe) else None


def _discard(target: Path) -> None:
    folder = target.with_name(f"{target.name}.parts")
    if (folder / "about.json").is_file():
        shutil.rmtree(folder)


def say(console: Console, found: FeatureFile, what: str) -> None:
    """Print what is in a file of features, and the videos that are not."""
    recipe = found.recipe
    kind = "clips" if recipe.per_clip else "videos"
    lines = [
        f"{found.path} {what}: {found.count} {kind}, {found.dim} numbers each",
        f"checkpoint {recipe.weights}, corpus {recipe.fingerprint}",
    ]
    lines += [f"left out: {uri}: {why}" for uri, why in list(found.failed.items())[:20]]
    if len(found.failed) > 20:
        lines.append(f"and {len(found.failed) - 20} more; the file's metadata has them all, under `failed`")
    console.print(*lines, sep="\n", markup=False, soft_wrap=True)
