"""What `ascnet probe` does."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import numpy as np
from rich.console import Console
from rich.table import Table

from ascnet.evaluate.probes import run_probe
from ascnet.evaluate.provenance import provenance
from ascnet.evaluate.sources import encoder_of, folder_of, protocol_of_args
from ascnet.evaluate.tables import write_json
from ascnet.precision import pick_device
from dali_pipes import Corpus

ASKED = {
    "speed": "which playback speed a clip has",
    "arrow": "whether a clip runs forward or backwards",
    "layers": "the class of a video, from the pooled features of each stage",
}


def probe_command(args: argparse.Namespace) -> int:
    """Run `ascnet probe` with its parsed arguments."""
    encoder, config, name = encoder_of(args)
    corpus = Corpus.open(args.corpus)
    protocol = protocol_of_args(args, config)
    results, left = run_probe(
        args.kind,
        encoder,
        corpus,
        np.asarray(corpus.select(args.train_split)),
        np.asarray(corpus.select(args.test_split)),
        protocol,
        speeds=args.speeds,
        seed=args.seed,
        device=pick_device(args.device),
        batch_size=args.batch_size,
        threads=args.threads,
    )
    card = {
        "asked": ASKED[args.kind], "corpus": str(args.corpus), "corpus_fingerprint": corpus.fingerprint,
        "encoder": name, "train": args.train_split, "test": args.test_split,
        "speeds": args.speeds if args.kind == "speed" else [protocol.speed], "clips": protocol.clips,
        "frames": protocol.frames, "size": protocol.size, "fps": protocol.fps, "crop": "centre", "seed": args.seed,
        "classifier": "logistic regression, float64, L-BFGS; penalty chosen on held-out training videos",
        **provenance(),
    }  # fmt: skip
    left_out = {corpus[row].uri: why for row, why in sorted(left.items())}
    scores = {layer: asdict(result) for layer, result in results.items()}
    path = write_json(
        folder_of(args, "probe") / f"probe_{args.kind}.json",
        {"kind": args.kind, "protocol": card, "results": scores, "left_out": left_out},
    )
    table = Table(title=f"Probe: {ASKED[args.kind]}", title_justify="left")
    for column in ("layer", "accuracy %", "standard error", "chance", "on training videos", "penalty"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for layer, result in results.items():
        numbers = (result.accuracy, result.standard_error, result.chance, result.train_accuracy)
        table.add_row(layer, *(f"{number:.1f}" for number in numbers), f"{result.penalty:g}")
    one = next(iter(results.values()))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"{one.train_videos} videos to fit on, {one.videos} others to test with ({one.samples} samples); {name}",
        *([f"{len(left_out)} videos are left out; {path.name} says why"] if left_out else []),
        f"wrote {path}",
        sep="\n", markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
