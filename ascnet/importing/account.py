"""Every tensor of a file accounted for: used under a name of ours, or dropped for a reason with a name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from ascnet.errors import CheckpointError
from ascnet.importing.layouts import Layout, Rules, rename


@dataclass(frozen=True)
class Account:
    """What became of the tensors of a file.

    Attributes:
        weights: Tensors by their names here, complete.
        used: Name here, by name in the file.
        dropped: Reason, by name in the file.
    """

    weights: dict[str, Tensor]
    used: dict[str, str]
    dropped: dict[str, str]


def settle(
    state: Mapping[str, Tensor], prefix: str, layout: Layout, dropped: Rules, expected: Mapping[str, Tensor]
) -> Account:
    """Sort a file's tensors.

    Args:
        state: Tensors by name in the file.
        prefix: What the backbone's names begin with.
        layout: The backbone's names.
        dropped: Patterns of what may be left out, with reasons.
        expected: The encoder's own tensors, for names and shapes.

    Raises:
        CheckpointError: Naming tensors that no rule accounts for, that are missing, or that have another shape.
    """
    weights: dict[str, Tensor] = {}
    used: dict[str, str] = {}
    left: dict[str, str] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        reason = rename(name, dropped)
        ours = rename(name.removeprefix(prefix), layout.rules) if name.startswith(prefix) else None
        if reason is not None:
            left[name] = reason
        elif ours is not None and ours in expected:
            weights[ours], used[name] = tensor, ours
        else:
            unknown.append(name)
    if unknown:
        raise CheckpointError(f"{_some(unknown)} in the file but not in {layout.encoder}, and known as nothing else")
    missing = [name for name in expected if name not in weights]
    if missing:
        raise CheckpointError(f"{_some(missing)} of {layout.encoder} missing in the file")
    theirs = {ours: name for name, ours in used.items()}
    for ours, tensor in weights.items():
        if tensor.shape != expected[ours].shape:
            raise CheckpointError(
                f"{theirs[ours]} has shape {list(tensor.shape)}; {layout.encoder} needs {list(expected[ours].shape)}"
            )
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise CheckpointError(f"{theirs[ours]} holds values that are not finite")
    return Account(weights, used, left)


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
