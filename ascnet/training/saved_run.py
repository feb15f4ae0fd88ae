"""Whether a run may go on from a checkpoint: the same settings and videos, but for what the user allows to differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascnet import checkpoint
from ascnet.config import Config
from ascnet.errors import CheckpointError, ConfigError
from ascnet.settings import flatten, nearest

if TYPE_CHECKING:
    from dali_pipes import Corpus

# Settings that a resumed run may change: none of them changes what is computed.
FREE = (
    "log", "checkpoint", "eval", "data.corpus", "data.threads", "data.graph_threads", "data.processes",
    "data.prefetch", "device",
    "retrieval.placement", "model.checkpoint_activations", "optim.max_skipped",
)  # fmt: skip


def check_new(run: Path, resume: bool) -> bool:
    """Whether there is a checkpoint to go on from.

    Raises:
        CheckpointError: If there is one and `resume` is not set.
    """
    if not (run / "checkpoints" / "last.pt").exists():
        return False
    if not resume:
        raise CheckpointError(f"{run} holds a run already; add --resume to go on with it, or give another --out")
    return True


def open_saved(run: Path, config: Config, corpus: Corpus, allow: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The newest checkpoint of a run, and the names of the settings that differ from it and are allowed to.

    Args:
        run: Folder of the run.
        config: Settings to go on with.
        corpus: Videos to go on with.
        allow: Dotted names of settings, or of whole sections, that may differ.

    Raises:
        ConfigError: If `allow` names a setting that does not exist.
        CheckpointError: If the checkpoint is damaged, or was made with other settings or another corpus.
    """
    check_names(allow)
    last = run / "checkpoints" / "last.pt"
    saved = checkpoint.load(last)
    # Keys that are younger than the checkpoint had no effect when it was made, as their defaults have none.
    then, now = flatten(Config().to_dict()) | flatten(saved["config"]), flatten(config.to_dict())
    changed = [name for name in sorted(now.keys() | then.keys()) if now.get(name) != then.get(name)]
    changed = [name for name in changed if not _covers(FREE, name)]
    refused = [name for name in changed if not _covers(allow, name)]
    if refused:
        shown = ", ".join(f"{name} {then.get(name)!r} -> {now.get(name)!r}" for name in refused)
        raise CheckpointError(
            f"{last} was made with other settings ({shown}); resume with those, start a new run, or add "
            f"--allow {' '.join(refused)}"
        )
    if saved["corpus"]["fingerprint"] != corpus.fingerprint:
        raise CheckpointError(
            f"{last} was made with another corpus ({saved['corpus']['videos']} videos, fingerprint "
            f"{saved['corpus']['fingerprint']}); this one has {len(corpus)} and {corpus.fingerprint}"
        )
    return saved, changed


def check_names(allow: Sequence[str]) -> None:
    """Raises a ConfigError, with the nearest right name, where `allow` names neither a setting nor a section."""
    names = list(flatten(Config().to_dict()))
    sections = sorted({name[:place] for name in names for place, letter in enumerate(name) if letter == "."})
    for name in allow:
        if name not in names and name not in sections and not name.startswith("model.options."):
            raise ConfigError(f"--allow {name}: unknown key{nearest(name, names + sections)}")


def _covers(names: Sequence[str], name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in names)
