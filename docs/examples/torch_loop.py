"""A plain PyTorch loop: tell at which of two speeds a clip is played. Run it again and it goes on where it stopped.

    python docs/examples/torch_loop.py corpus.parquet --steps 100 --checkpoint run.pt

The loader's state is a few numbers beside the model's. With it, the batches after a stop are exactly those that would
have come without it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import nn

from dali_pipes import Corpus, SpeedLoader


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network to tell playback speeds apart.")
    parser.add_argument("corpus", metavar="CORPUS", help="file that `dali-pipes index` wrote")
    parser.add_argument("--steps", type=int, default=100, help="steps of this run (default: %(default)s)")
    parser.add_argument("--checkpoint", type=Path, help="goes on from this file if it exists, and is written to it")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 2)
    )
    loader = SpeedLoader(
        Corpus.open(args.corpus), frames=args.frames, size=args.size, speeds=(1, 2), batch_size=args.batch_size,
        device=args.device, dtype="float32",
    )  # fmt: skip
    done = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if args.checkpoint and args.checkpoint.exists():
        saved = torch.load(args.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])
        done = saved["step"]

    with loader:
        last = done + args.steps
        while done < last:
            for batch in loader:  # the rest of the current epoch
                clips = batch.clips.flatten(0, 1)  # (B, V, C, T, H, W) -> (B * V, C, T, H, W)
                model.to(clips.device)
                labels = (batch.speeds.flatten() > 1).long()
                loss = nn.functional.cross_entropy(model(clips), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                done += 1
                print(f"step {done} epoch {batch.epoch} videos {batch.videos.tolist()} loss {loss.item():.4f}")
                if done == last:
                    break
        if args.checkpoint:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
            partial = args.checkpoint.with_name(f".{args.checkpoint.name}.part")
            torch.save({**state, "step": done}, partial)
            os.replace(partial, args.checkpoint)


if __name__ == "__main__":
    main()
