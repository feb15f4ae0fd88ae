"""What a file of features depends on: weights, corpus, clips. It stands in the file, and queries are made by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ascnet.errors import UserError
from ascnet.evaluate.protocols import Protocol

VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """How features were made.

    Attributes:
        weights: Digest of the encoder's layers and weights.
        checkpoint: Where they came from, an absolute path.
        network: ``online`` or ``target``, of the checkpoint's two copies.
        corpus: Path of the corpus file, absolute.
        fingerprint: Of the corpus.
        split: Split that was described; "" is the whole corpus.
        per_clip: Whether each clip has a row of its own; else a video has one, the mean over its clips.
        protocol: What `Protocol.recipe` says: frames, size, clips, speed, colours and so on.
        device: Kind of device that computed them: its arithmetic may differ in the last digits.
    """

    weights: str
    checkpoint: str
    network: str
    corpus: str
    fingerprint: str
    split: str
    per_clip: bool
    protocol: dict[str, Any]
    device: str

    def clips(self) -> Protocol:
        """The protocol again, to make queries that can be compared with these features."""
        settings: dict[str, Any]
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in self.protocol.items()}
        return Protocol(**settings)

    def differences(self, other: Recipe) -> list[str]:
        """What is not the same, in words. Where files lie makes no difference, only what is in them."""
        told = []
        for name in ("weights", "fingerprint", "split", "per_clip", "device"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                told.append(f"{_NAMES.get(name, name)} {theirs!r}, not {mine!r}")
        mine, theirs = _plain(self.protocol), _plain(other.protocol)
        told += [
            f"{key} {theirs.get(key)}, not {mine.get(key)}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        ]
        return told

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def of(cls, content: Mapping[str, Any], where: str) -> Recipe:
        """From JSON.

        Raises:
            UserError: It is not what `as_dict` gave, or of another version; `where` names the file.
        """
        if content.get("version") != VERSION:
            raise UserError(f"{where}: features of format {content.get('version')}; this version reads {VERSION}")
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in content]
        if missing:
            raise UserError(f"{where}: not written by `ascnet embed`: it does not say {missing[0]!r}")
        return cls(**{name: content[name] for name in names})


_NAMES = {"weights": "checkpoint", "fingerprint": "corpus", "per_clip": "--per-clip", "split": "--split"}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON, where there are no tuples."""
    return dict(json.loads(json.dumps(values)))
