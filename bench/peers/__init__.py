"""The candidates of `python -m bench loader`: ours, and adapters to other tools, which are optional."""

from __future__ import annotations

from bench.peers import dali, decord, ours, pyav, torchcodec
from bench.peers.base import Candidate, Setting

CANDIDATES: dict[str, type[Candidate]] = {
    "ours": ours.Ours,
    "ours-threads": ours.OursThreads,
    "decord-usual": decord.DecordUsual,
    "decord-best": decord.DecordBest,
    "torchcodec-usual": torchcodec.TorchcodecUsual,
    "torchcodec-best": torchcodec.TorchcodecBest,
    "pyav-usual": pyav.PyavUsual,
    "pyav-best": pyav.PyavBest,
    "dali-decoder": dali.DaliDecoder,
    "dali-reader": dali.DaliReader,
}

__all__ = ["CANDIDATES", "Candidate", "Setting"]
