"""What `ascnet knn` does."""

from __future__ import annotations

import argparse
from dataclasses import asdict

import numpy as np
from rich.console import Console

from ascnet.evaluate.features import extract
from ascnet.evaluate.knn import classify
from ascnet.evaluate.provenance import provenance
from ascnet.evaluate.sources import encoder_of, folder_of, protocol_of_args
from ascnet.evaluate.tables import write_json
from ascnet.precision import pick_device
from dali_pipes import Corpus


def knn_command(args: argparse.Namespace) -> int:
    """Run `ascnet knn` with its parsed arguments."""
    encoder, config, name = encoder_of(args)
    corpus = Corpus.open(args.corpus)
    protocol = protocol_of_args(args, config)
    query, gallery = (np.asarray(corpus.select(split)) for split in (args.test_split, args.train_split))
    features = extract(
        encoder,
        corpus,
        np.union1d(query, gallery),
        protocol,
        batch_size=args.batch_size,
        device=pick_device(args.device),
        threads=args.threads,
    )
    apart = args.test_split == args.train_split
    found = classify(
        features.of(query), features.of(gallery), corpus, k=args.k, temperature=args.temperature, apart=apart
    )
    card = {
        "corpus": str(args.corpus), "corpus_fingerprint": corpus.fingerprint, "encoder": name,
        "test": args.test_split, "train": args.train_split, "k": args.k, "temperature": args.temperature,
        "clips": protocol.clips, "frames": protocol.frames, "size": protocol.size, "fps": protocol.fps,
        "crop": "centre", "seed": args.seed, **provenance(),
    }  # fmt: skip
    scores = {key: value for key, value in asdict(found).items() if key != "failed"}
    left_out = {corpus[row].uri: why for row, why in found.failed.items()}
    path = write_json(folder_of(args, "knn") / "knn.json", {"protocol": card, **scores, "left_out": left_out})
    top5 = "" if found.top5 is None else f", top-5 {found.top5:.2f} %"
    console = Console(highlight=False)
    console.print(
        f"{args.k} nearest of {found.gallery} videos, {found.queries} classified: top-1 {found.top1:.2f} % (standard "
        f"error {found.error:.2f}){top5}; plain majority {found.majority:.2f} %",
        f"{len(left_out)} videos could not be decoded and are left out" if left_out else f"encoder: {name}",
        f"wrote {path}",
        sep="\n", markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0
