"""What a recognition run leaves behind: the protocol card, scores, confusion matrices as numbers and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ascnet.evaluate.provenance import provenance
from ascnet.evaluate.recognise_config import RecogniseConfig, learning_rate
from ascnet.evaluate.tables import write_json
from ascnet.files import written_whole
from dali_pipes import Corpus

MODELS = ("last", "best")
SCORES = ("top1", "top5", "mean_class")
NAMED = 30
"""With more classes than these a picture of the confusion matrix has numbers on its axes, not names."""


def card(
    config: RecogniseConfig,
    corpus: Corpus,
    trained: int,
    held: NDArray[np.int64],
    tested: NDArray[np.int64],
    processes: int,
) -> dict[str, Any]:
    """The protocol card: everything that the scores depend on besides the weights that training began with."""
    data, test = config.data, config.test
    total = data.batch_size * processes
    chosen = {
        "clean": f"{len(held)} videos held out of training, seed {config.seed}"
        if len(held)
        else "none: the last epoch",
        "rspnet": f"the test split, {config.validation.clips} clip(s) a video, as published (optimistic)",
    }[config.protocol]
    crops = {1: "centre crop", 3: "3 crops", 10: "10 crops"}[test.crops]
    return {
        "name": config.protocol,
        "task": "linear classification of frozen features" if config.model.frozen else "fine-tuning of all weights",
        "corpus": data.corpus or str(corpus.path or ""),
        "corpus_fingerprint": corpus.fingerprint,
        "classes": len(corpus.classes),
        "train": f"{data.train_split}, {trained} videos{_missing(corpus, data.train_split)}",
        "chosen_on": chosen,
        "test": f"{data.test_split}, {len(tested)} videos{_missing(corpus, data.test_split)}",
        **({"surplus": corpus.listing.surplus} if corpus.listing is not None else {}),
        "encoder": config.model.encoder,
        "checkpoint": config.model.checkpoint or None,
        "clip": f"{data.frames} frames at {data.speed:g}x, {data.size} x {data.size}, "
        + ("native frame rate" if data.fps is None else f"1x = {data.fps:g} frames/s"),
        "test_views": f"{test.clips} clips x {crops}, mean of {test.average}",
        "epochs": config.epochs,
        "batch_per_process": data.batch_size,
        "processes": processes,
        "total_batch": total,
        "peak_lr": learning_rate(config.optim, total),
        "schedule": config.optim.schedule,
        "seed": config.seed,
        **provenance(),
    }


def _missing(corpus: Corpus, split: str) -> str:
    """How whole a split of the official lists is, where the corpus was made from such."""
    share = corpus.listing.share(split) if corpus.listing is not None else ""
    return f" ({share})" if share else ""


def write_results(run: Path, result: Mapping[str, Any], classes: Sequence[str], say: Callable[[str], None]) -> None:
    """Writes recognition.json, and each model's confusion matrix, and shows the scores."""
    shown = {name: value for name, value in result.items() if name not in ("stopped_by", "out")}
    written = []
    for name in MODELS:
        if name not in result:
            continue
        counts = np.asarray(result[name]["confusion"])
        path = run / f"confusion_{name}.json"
        with written_whole(path) as temporary:
            lines = ",\n  ".join(json.dumps(row) for row in counts.tolist())
            temporary.write_text(
                f'{{"rows": "true class", "columns": "predicted class",\n "classes": {json.dumps(list(classes))},\n'
                f' "counts": [\n  {lines}\n ]}}\n',
                encoding="utf-8",
            )
        written.append(path)
        picture = confusion_picture(
            run / f"confusion_{name}.png", counts, classes, f"{name}: {scores_line(result[name])}"
        )
        written += [picture] if picture is not None else []
        shown[name] = {key: value for key, value in result[name].items() if key != "confusion"}
    written.insert(0, write_json(run / "recognition.json", shown))
    for name in MODELS:
        if name in result:
            say(f"{name} (epoch {result[name]['epoch']}): {scores_line(result[name])}")
    if result.get("left_out"):
        say(f"{len(result['left_out'])} videos could not be decoded and are left out; recognition.json names them")
    for path in written:
        say(f"wrote {path}")


def scores_line(scores: Mapping[str, Any]) -> str:
    """The scores of one model in words."""
    top5 = f", top-5 {scores['top5']:.2f} %" if "top5" in scores else ""
    return (
        f"top-1 {scores['top1']:.2f} % (standard error {scores['standard_error']:.2f}){top5}, "
        f"mean over classes {scores['mean_class']:.2f} %, {scores['videos']} videos"
    )


def confusion_picture(path: Path, counts: NDArray[np.int64], classes: Sequence[str], title: str) -> Path | None:
    """Draws a confusion matrix, each row as shares of its class; None where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    named = len(classes) <= NAMED
    edge = 3.0 + (0.3 * len(classes) if named else 6.0)
    figure = Figure(figsize=(edge + 1, edge), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class")
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(title, fontsize=8, wrap=True)
    if named:
        axes.set_xticks(range(len(classes)), classes, rotation=90, fontsize=7)
        axes.set_yticks(range(len(classes)), classes, fontsize=7)
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            text = str(counts[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=6, color=colour)
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
    return path


def average_folds(results: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation of the scores over official splits.

    Args:
        results: Results by the number of the split.

    Returns:
        `folds`, and for each model `mean`, `std` (None for a single split) and `by_fold` of each score.
    """
    found: dict[str, Any] = {"folds": list(results)}
    for model in MODELS:
        if not all(model in result for result in results.values()):
            continue
        found[model] = {}
        for score in SCORES:
            if all(score in result[model] for result in results.values()):
                values = [result[model][score] for result in results.values()]
                found[model][score] = {
                    "mean": fmean(values),
                    "std": stdev(values) if len(values) > 1 else None,
                    "by_fold": values,
                }
    return found
