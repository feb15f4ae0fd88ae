"""`python -m bench embed`: clips a second of `ascnet embed` beside those of the loader alone, for the same requests.

With an encoder that computes next to nothing, what is missing is lost by the extraction itself. With a real one on the
CPU, encoder and decoder share the cores: what both need is then the bound, and not the loader.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from ascnet.evaluate.clips import requests_of
from ascnet.evaluate.command import protocol_of
from ascnet.evaluate.protocols import Protocol
from ascnet.evaluate.store import weights_digest
from ascnet.precision import pick_device
from ascnet.search.describe import open_stream
from ascnet.search.embed import embed
from ascnet.search.recipe import Recipe
from ascnet.weights import load_encoder
from bench.measure import environment
from bench.measure.options import open_corpus, positive
from bench.measure.output import write_json
from bench.measure.stats import estimate, ratios
from dali_pipes import Corpus
from dali_pipes.errors import DataError

FORMAT = 1
PLAIN, TINY, GIVEN = "loader alone", "tiny encoder", "checkpoint"


class Tiny(nn.Module):
    """An encoder whose feature map is the clip."""

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return clips


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this sub-command."""
    parser.add_argument("corpus", type=Path, metavar="CORPUS_OR_FOLDER", help="a .parquet index or a folder of videos")
    parser.add_argument("--checkpoint", type=Path, help="an encoder to measure besides the tiny one")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count, after one that does not")
    parser.add_argument("--clips", type=positive, default=10, help="of a video (default: %(default)s)")
    parser.add_argument("--frames", type=positive, default=16, help="of a clip, without a checkpoint (default: 16)")
    parser.add_argument("--size", type=positive, default=112, help="of a clip, without a checkpoint (default: 112)")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"), help="default: fp32")
    parser.add_argument("--batch-size", type=positive, default=40, help="clips in a batch (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, cpu; default: a GPU if any")
    parser.add_argument("--threads", type=positive, help="decoding threads; default: one a core")
    parser.add_argument("--seed", type=int, default=0, help="of the order in a round (default: %(default)s)")
    parser.add_argument("--require", type=float, metavar="X", help="exit with 1 where a median ratio is below this")
    parser.add_argument("--output", type=Path, help="write the result here as JSON")


def run(args: argparse.Namespace) -> int:
    """Measure, print and save; 1 where `--require` is missed.

    Raises:
        DataError, UserError: For a user's mistake.
    """
    corpus = open_corpus(args.corpus)
    device = pick_device(args.device)
    encoders: dict[str, nn.Module] = {TINY: Tiny()}
    protocol = Protocol(frames=args.frames, size=args.size, clips=args.clips, precision=args.precision)
    if args.checkpoint is not None:
        encoder = load_encoder(args.checkpoint)
        encoders[GIVEN] = encoder
        protocol = protocol_of(encoder.config or {}, clips=args.clips, precision=args.precision)
    rates = measure(corpus, encoders, protocol, device, args)
    summary = {name: estimate(found).as_dict() for name, found in rates.items()}
    shares = {name: estimate(ratios(rates[name], rates[PLAIN])).as_dict() for name in encoders}
    met = args.require is None or all(found["median"] >= args.require for found in shares.values())
    result = {
        "format": FORMAT,
        "benchmark": "embed",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "arguments": {k: v for k, v in vars(args).items() if k not in ("corpus", "checkpoint", "output", "command")},
        "environment": environment.describe(),
        "corpus": {"name": args.corpus.name, "fingerprint": corpus.fingerprint, "videos": len(corpus.select())},
        "weights": weights_digest(encoders[GIVEN]) if GIVEN in encoders else None,
        "device": str(device),
        "rounds": rates,
        "clips_per_second": summary,
        "ratio": shares,
        "met": met,
    }
    if args.output is not None:
        write_json(args.output, result)
    table = Table("", "clips/s [95 %]", "of the loader's [95 %]")
    for name, found in summary.items():
        share = shares.get(name)
        told = f"{share['median']:.3f} [{share['low']:.3f}, {share['high']:.3f}]" if share else "1"
        table.add_row(name, f"{found['median']:.1f} [{found['low']:.1f}, {found['high']:.1f}]", told)
    console = Console(highlight=False)
    console.print(table)
    if args.require is not None:
        console.print(f"goal >= {args.require:g} of the loader's rate: {'met' if met else 'MISSED'}")
    return int(not met)


def measure(
    corpus: Corpus,
    encoders: dict[str, nn.Module],
    protocol: Protocol,
    device: torch.device,
    args: argparse.Namespace,
) -> dict[str, list[float]]:
    """Clips/s of each, by round; the order within a round is random, and the first round does not count.

    Each is timed from opening its stream to the last clip, for embedding to the finished file.
    """
    rows = corpus.select().tolist()
    if not rows:
        raise DataError(f"{args.corpus}: no usable video; see its column 'error'")
    order = random.Random(args.seed)
    rates: dict[str, list[float]] = {name: [] for name in (PLAIN, *encoders)}
    for number in range(args.rounds + 1):
        for name in order.sample(list(rates), len(rates)):
            begun = time.perf_counter()
            if name == PLAIN:
                _load(corpus, rows, protocol, device, args)
            else:
                _embed(encoders[name], corpus, protocol, device, args)
            if number:
                rates[name].append(len(rows) * protocol.clips / (time.perf_counter() - begun))
    return rates


def _load(corpus: Corpus, rows: list[int], protocol: Protocol, device: torch.device, args: argparse.Namespace) -> None:
    """The same requests in the same batches through the same stream, and nothing done with the clips."""
    with open_stream(corpus, protocol, device=device, batch_size=args.batch_size, threads=args.threads) as stream:
        starts = range(0, len(rows), stream.batch_size)
        asked = (requests_of(corpus, rows[at : at + stream.batch_size], protocol, "query") for at in starts)
        for _ in stream.map(asked):
            pass


def _embed(
    encoder: nn.Module, corpus: Corpus, protocol: Protocol, device: torch.device, args: argparse.Namespace
) -> None:
    recipe = Recipe(
        weights="bench",
        checkpoint="",
        network="online",
        corpus=str(args.corpus),
        fingerprint=corpus.fingerprint,
        split="",
        per_clip=False,
        protocol=protocol.recipe("query"),
        device=device.type,
    )
    with tempfile.TemporaryDirectory() as folder:
        embed(
            encoder,
            corpus,
            recipe,
            Path(folder) / "features.npy",
            device=str(device),
            batch_size=args.batch_size,
            threads=args.threads,
            progress=False,
        )
