"""Files that runs leave behind, as `ascnet retrieve`, `finetune` and `linear` write them, without any training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

UCF_LISTS = {"layout": "ucf101", "fold": 1, "listed": {"train": 9537, "test": 3783}, "missing": {}, "surplus": 0}


def write_retrieval(
    run: Path, recalls: dict[str, float], *, seed: int = 0, listing: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """RUN/config.yaml and RUN/retrieve/retrieval.json; `changes` are settings of the pretraining."""
    config = {"data": {"corpus": "x.parquet", "frames": 8}, "model": {"encoder": "r3d18", "width": 1.0}, "seed": seed}
    (run / "retrieve").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({**config, **changes}))
    protocol = {
        "name": "clean", "frames": 16, "size": 112, "clips": 10, "speed": 1.0, "fps": None, "crop": "centre",
        "query_split": "test", "gallery_split": "train", "differences": [], "seed": 0,
    }  # fmt: skip
    content = {
        "corpus": "/nowhere/small.parquet",
        "checkpoint": str(run),
        "corpus_fingerprint": "abc",
        "protocol": protocol,
        "queries": 3783,
        "gallery": 9537,
        "listing": listing,
        "card": ["protocol clean", "data: none of 3783 test videos missing"],
        "recall": {"chance": {"R@1": 1.0}, "pretrained": recalls},
        "command": "ascnet retrieve --checkpoint runs/a_b",
        "commit": "c0ffee",
    }
    path = run / "retrieve" / "retrieval.json"
    path.write_text(json.dumps(content))
    return path


def recognition(classes: list[str], top1: float, **changes: Any) -> dict[str, Any]:
    """Content of recognition.json."""
    told = {"seed": 0, "frozen": False, "checkpoint": "", "lr": 0.1, **changes}
    scores = {"epoch": 30, "top1": top1, "mean_class": top1 - 1, "per_class": dict.fromkeys(classes, top1)}
    card = {
        "name": "clean", "task": "fine-tuning", "corpus": "/nowhere/own.parquet", "corpus_fingerprint": "def",
        "classes": len(classes), "train": "train, 90 videos", "chosen_on": "none: the last epoch",
        "test": "test, 30 videos", "clip": "16 frames at 1x, 112 x 112, native frame rate",
        "test_views": "10 clips x centre crop, mean of logits", "epochs": 30, "total_batch": 32, "peak_lr": told["lr"],
        "schedule": "cosine", "seed": told["seed"], "command": "ascnet finetune", "commit": "c0ffee",
    }  # fmt: skip
    if "fold" in told:
        card["fold"] = told["fold"]
    model = {"encoder": "s3dg", "width": 1.0, "frozen": told["frozen"], "checkpoint": told["checkpoint"]}
    config = {"model": model, "seed": told["seed"], "optim": {"lr": told["lr"]}, "data": {"corpus": card["corpus"]}}
    return {"protocol": card, "config": config, "last": scores, "history": []}


def write_json(path: Path, content: dict[str, Any]) -> Path:
    """Writes a file, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
