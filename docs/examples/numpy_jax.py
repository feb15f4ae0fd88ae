"""Clips for NumPy and JAX, through DLPack: no copy is made on the way.

python docs/examples/numpy_jax.py corpus.parquet --batches 10
"""

from __future__ import annotations

import argparse

import numpy as np

from dali_pipes import Corpus, SpeedLoader


def main() -> None:
    parser = argparse.ArgumentParser(description="Take clips as NumPy and, where it is installed, JAX arrays.")
    parser.add_argument("corpus", metavar="CORPUS", help="file that `dali-pipes index` wrote")
    parser.add_argument("--batches", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default: %(default)s)")
    args = parser.parse_args()

    try:
        import jax.numpy as jnp
    except ImportError:
        jnp = None
        print("JAX is not installed; NumPy alone")
    done = 0
    # NumPy takes memory of the CPU alone; for JAX on a GPU leave device="auto" and skip the NumPy lines.
    with SpeedLoader(
        Corpus.open(args.corpus), frames=args.frames, size=args.size, batch_size=args.batch_size, device="cpu"
    ) as loader:
        while done < args.batches:
            for batch in loader:
                clips = np.from_dlpack(batch.clips)  # (B, V, C, T, H, W), the same memory
                assert np.shares_memory(clips, batch.clips.numpy())
                frames = clips.transpose(0, 1, 3, 4, 5, 2)  # (B, V, T, H, W, C), as JAX's layers want it: a view
                print(f"numpy {frames.shape} {frames.dtype} videos {np.from_dlpack(batch.videos).tolist()}")
                if jnp is not None:
                    device_clips = jnp.from_dlpack(batch.clips)
                    print(f"jax {device_clips.shape} {device_clips.dtype} {device_clips.device}")
                done += 1
                if done == args.batches:
                    break


if __name__ == "__main__":
    main()
