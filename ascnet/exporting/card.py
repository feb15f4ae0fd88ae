"""The card of an exported encoder: what it is, what it was fed with, how it was trained and what it scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ascnet import checkpoint
from ascnet.encoders import Encoder


def make_card(encoder: Encoder, source: Path, network: str, clip: tuple[int, int]) -> dict[str, Any]:
    """Everything that is known about an encoder, as plain values.

    Args:
        encoder: With its `config`.
        source: The checkpoint, or exported file, that it was read from.
        network: The copy that was taken.
        clip: Frames, and edge in pixels, of the clips it is for.
    """
    config = encoder.config or {}
    model, augment = config["model"], config["data"]["augment"]
    payload = checkpoint.load(source) if source.suffix != ".safetensors" else _inherited(source)
    card: dict[str, Any] = {
        "encoder": model["encoder"],
        "width": model["width"],
        "options": model["options"],
        "dim": encoder.dim,
        "parameters": sum(parameter.numel() for parameter in encoder.parameters()),
        "network": payload.get("network", network),
        "input": {
            "shape": ["batch", 3, clip[0], clip[1], clip[1]],
            "channels": "RGB, scaled to 0..1, minus mean, divided by std",
            "mean": list(augment["mean"]),
            "std": list(augment["std"]),
        },
        "output": ["batch", encoder.dim],
        "steps": payload.get("step"),
        "corpus": payload.get("corpus"),
        "imported": payload.get("imported"),
        "metrics": payload.get("metrics") or _metrics(source, payload.get("step")),
        "versions": payload.get("versions"),
        "config": config,
    }
    return {name: value for name, value in card.items() if value is not None}


def _inherited(source: Path) -> dict[str, Any]:
    """What the card of an exported file says, under the names of a checkpoint."""
    from safetensors import safe_open

    with safe_open(source, framework="pt") as file:
        card = json.loads((file.metadata() or {}).get("card", "{}"))
    return {**card, "step": card.get("steps")}


def _metrics(source: Path, step: int | None) -> dict[str, Any] | None:
    """The run's own records: losses of the last step where it is this checkpoint's, and retrieval scores."""
    run = source.parent.parent if source.parent.name == "checkpoints" else source.parent
    metrics: dict[str, Any] = {}
    summary, retrieval = _json(run / "summary.json"), _json(run / "retrieve" / "retrieval.json")
    if summary.get("steps") == step and step is not None:
        metrics |= {name: summary[name] for name in ("loss", "loss_acp", "loss_scp") if summary.get(name) is not None}
    if "recall" in retrieval:
        names = ("recall", "protocol", "queries", "gallery", "corpus_fingerprint", "checkpoint", "network")
        metrics["retrieval"] = {name: retrieval[name] for name in names if name in retrieval}
    return metrics or None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


USE = {
    "safetensors": 'from ascnet import load_encoder\n\nencoder = load_encoder("{name}")\nfeatures = encoder(clips)',
    "onnx": 'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{name}")\n'
    'features = session.run(None, {{"clips": clips}})[0]',
    "torch": 'import torch\n\nencoder = torch.export.load("{name}").module()\nfeatures = encoder(clips)',
}


def markdown(card: Mapping[str, Any], name: str, form: str, check: str) -> str:
    """The card for people.

    Args:
        card: From `make_card`.
        name: Of the exported file.
        form: Its format.
        check: What the check after writing found.
    """
    given = card["input"]
    options = "".join(f", {key} {value}" for key, value in card["options"].items())
    rows = {
        "Encoder": f"{card['encoder']}, width {card['width']:g}{options}",
        "Parameters": f"{card['parameters']:,}",
        "Input": f"{' x '.join(str(size) for size in given['shape'])}; {given['channels']}",
        "Mean, std": f"{given['mean']}, {given['std']}",
        "Output": " x ".join(str(size) for size in card["output"]),
        "Network": card["network"],
        "Steps": card.get("steps"),
        "Corpus": _corpus(card.get("corpus")),
        "Imported": _imported(card.get("imported")),
        "Check": check,
    }
    lines = [f"# {name}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in rows.items() if value is not None]
    lines += ["", "```python", USE[form].format(name=name), "```", ""]
    metrics = dict(card.get("metrics") or {})
    retrieval = metrics.pop("retrieval", None)
    if metrics:
        lines += ["## Last step", "", *(f"- {key}: {value:.6g}" for key, value in metrics.items()), ""]
    if retrieval:
        lines += ["## Retrieval", "", *_recall(retrieval), ""]
    lines += ["## Configuration", "", "```yaml", yaml.safe_dump(card["config"], sort_keys=False).rstrip(), "```", ""]
    return "\n".join(lines)


def _recall(retrieval: Mapping[str, Any]) -> list[str]:
    recall: Mapping[str, Mapping[str, float]] = retrieval["recall"]
    ks = list(dict.fromkeys(k for row in recall.values() for k in row))
    lines = [f"| features | {' | '.join(ks)} |", f"|---|{'---|' * len(ks)}"]
    for name, row in recall.items():
        lines.append(f"| {name} | {' | '.join(f'{row[k]:.1f}' if k in row else '-' for k in ks)} |")
    rest = {name: value for name, value in retrieval.items() if name != "recall"}
    return [*lines, "", "```yaml", yaml.safe_dump(rest, sort_keys=False).rstrip(), "```"]


def _corpus(corpus: Mapping[str, Any] | None) -> str | None:
    return None if not corpus else f"{corpus['videos']} videos, fingerprint {corpus['fingerprint']}"


def _imported(imported: Mapping[str, Any] | None) -> str | None:
    return None if not imported else f"{imported['source']}, {imported['file']}, sha256 {imported['sha256']}"
