"""SpeedLoader in Lightning: a DataModule that shares the epoch among ranks and resumes exactly.

python docs/examples/lightning_module.py corpus.parquet --steps 100 --folder runs/lightning
python docs/examples/lightning_module.py corpus.parquet --steps 200 --resume runs/lightning/last.ckpt
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from dali_pipes import ClipBatch, Corpus, SpeedLoader


class Batches:
    """A SpeedLoader without its state_dict, which Lightning would save and load beside the DataModule's."""

    def __init__(self, loader: SpeedLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[ClipBatch]:
        batches = iter(self.loader)
        first = next(batches, None)
        if first is None:  # of an epoch that was saved or left behind its last batch nothing is to come
            batches = iter(self.loader)
            first = next(batches)
        yield first
        yield from batches


class SpeedData(lightning.LightningDataModule):
    """Clips at several speeds.

    Args:
        corpus: File that `dali-pipes index` wrote.
        options: Of SpeedLoader.
    """

    def __init__(self, corpus: str, **options: Any) -> None:
        super().__init__()
        self.corpus = Corpus.open(corpus)
        self.options = options
        self.loader: SpeedLoader | None = None
        self.saved: dict[str, Any] | None = None

    def train_dataloader(self) -> Batches:
        assert self.trainer is not None
        self.teardown("fit")
        self.loader = SpeedLoader(
            self.corpus,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            device=str(self.trainer.strategy.root_device),
            **self.options,
        )
        if self.saved is not None:
            self.loader.load_state_dict(self.saved)
        return Batches(self.loader)

    def transfer_batch_to_device(self, batch: ClipBatch, device: torch.device, dataloader_idx: int) -> ClipBatch:
        return batch  # it is there already

    def state_dict(self) -> dict[str, Any]:
        # A state is the same on every rank, so that the one that Lightning writes serves all.
        return self.loader.state_dict() if self.loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict or None  # the loader is made later, when the trainer knows its ranks

    def teardown(self, stage: str) -> None:
        if self.loader is not None:
            self.loader.close()
            self.loader = None


class SpeedNet(lightning.LightningModule):
    """Tells at which of two speeds a clip is played."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv3d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 2)
        )

    def training_step(self, batch: ClipBatch, batch_idx: int) -> torch.Tensor:
        labels = (batch.speeds.flatten() > 1).long()
        loss = nn.functional.cross_entropy(self.net(batch.clips.flatten(0, 1)), labels)
        # Lightning cannot count the samples of a batch that is no tensor.
        self.log("loss", loss, batch_size=len(batch))
        print(f"step {self.global_step + 1} epoch {batch.epoch} videos {batch.videos.tolist()} loss {loss.item():.4f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small network to tell playback speeds apart.")
    parser.add_argument("corpus", metavar="CORPUS", help="file that `dali-pipes index` wrote")
    parser.add_argument("--steps", type=int, default=100, help="steps of the whole run (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("runs/lightning"), help="for checkpoints")
    parser.add_argument("--resume", type=Path, help="checkpoint to go on from")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default: %(default)s)")
    parser.add_argument("--accelerator", default="auto", help="auto, cpu or gpu (default: %(default)s)")
    args = parser.parse_args()

    lightning.seed_everything(0)
    data = SpeedData(
        args.corpus, frames=args.frames, size=args.size, speeds=(1, 2), batch_size=args.batch_size, dtype="float32"
    )
    trainer = lightning.Trainer(
        accelerator=args.accelerator,
        devices=1 if args.accelerator == "cpu" else "auto",
        max_steps=args.steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(args.folder, save_last=True, every_n_train_steps=1)],
    )
    trainer.fit(SpeedNet(), datamodule=data, ckpt_path=args.resume)


if __name__ == "__main__":
    main()
