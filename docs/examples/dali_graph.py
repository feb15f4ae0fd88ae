"""Our decoded clips as nodes in a DALI graph of your own, with your own operators behind them.

    python docs/examples/dali_graph.py corpus.parquet --batches 10

The host side is a sampler, which says which clips; a Preparer, which reads them and decodes what DALI cannot; and
`feed`, which hands them to the graph. The graph side is `frames_node` and, for each view, `gather_node`.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

from dali_pipes import Augment, ClipSampler, Corpus
from dali_pipes.decode.choice import survey
from dali_pipes.pipeline import GraphSpec, feed, frames_node, gather_node
from dali_pipes.prepare import Preparer


# Conditionals let a batch hold videos that DALI decodes beside others that the host has decoded.
@pipeline_def(enable_conditionals=True)
def my_graph(spec: GraphSpec) -> tuple[DataNode, ...]:
    frames = frames_node(spec)  # of all views, each decoded once: (F, H, W, 3) uint8
    outputs = []
    for view in range(spec.views):
        clip = gather_node(frames, view)  # at the view's playback speed: (T, H, W, 3) uint8
        # From here on all is yours.
        clip = fn.resize(clip, resize_shorter=spec.size)
        clip = fn.rotate(clip, angle=fn.random.uniform(range=(-10.0, 10.0)), keep_size=True, fill_value=0)
        clip = fn.crop_mirror_normalize(
            clip,
            crop=(spec.size, spec.size),
            dtype=types.FLOAT,
            output_layout="CFHW",
            mean=[127.5] * 3,
            std=[127.5] * 3,
        )
        outputs.append(clip)
    return tuple(outputs)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a DALI graph of one's own over clips at two speeds.")
    parser.add_argument("corpus", metavar="CORPUS", help="file that `dali-pipes index` wrote")
    parser.add_argument("--batches", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames of a clip (default: %(default)s)")
    parser.add_argument("--size", type=int, default=112, help="side of the clips, pixels (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="videos of a batch (default: %(default)s)")
    parser.add_argument("--gpu", type=int, help="CUDA device (default: the CPU)")
    args = parser.parse_args()

    corpus = Corpus.open(args.corpus)
    speeds = (1, 2)
    device = "cpu" if args.gpu is None else "gpu"
    # Which ways of decoding this corpus needs there; the graph is made for those.
    decoders = {choice.decoder for choice in survey(corpus, device)}
    spec = GraphSpec(
        views=len(speeds), size=args.size, batch_size=args.batch_size, encoded="dali" in decoders,
        raw="host" in decoders, augment=Augment(), dtype="float32", threads=2, device_id=args.gpu,
    )  # fmt: skip
    sampler = ClipSampler(corpus, frames=args.frames, speeds=speeds, seed=0)
    preparer = Preparer(
        corpus=corpus, frames=args.frames, size=args.size, augment=None, fps=None, short="loop", device=device,
        decoder="auto", processes=True,
    )  # fmt: skip
    graph = my_graph(
        spec, batch_size=args.batch_size, num_threads=spec.threads, device_id=args.gpu, seed=0,
        prefetch_queue_depth=1, exec_dynamic=True,
    )  # fmt: skip
    graph.build()
    steps = len(sampler) // args.batch_size
    with ThreadPoolExecutor(4) as workers:
        for number in range(args.batches):
            epoch, step = divmod(number, max(steps, 1))
            places = range(step * args.batch_size, min((step + 1) * args.batch_size, len(sampler)))
            requests = [sampler.request(epoch, place) for place in places]
            samples = list(workers.map(preparer, requests))
            feed(graph, spec, samples, draws=False)  # no view_node, so no inputs for its crops and colours
            views = [torch.from_dlpack(output.as_tensor()) for output in graph.run()]
            clips = torch.stack(views, dim=1)
            print(f"batch {number} videos {[r.video for r in requests]} clips {tuple(clips.shape)} {clips.dtype}")


if __name__ == "__main__":
    main()
