"""The one DALI graph, for CPU and GPU: decode once, then gather, crop, resize, colour and normalise each view.

::

    encoded ─ decode ─┐
                      ├─ frames FHWC ─ gather view 0 ─ crop+resize ─ colour ─ blur ─ flip+normalise ─ CFHW
    raw (host) ───────┘              └ gather view 1 ─ ...

Only the device of the decoder and of what follows differs. Gathering is where playback speed is applied: the decoder
gets every frame needed once (repeated frames would be decoded again), and each view takes its own out of them.

:func:`build` makes the whole graph. Its parts, :func:`frames_node`, :func:`gather_node` and :func:`view_node`, make the
same nodes inside somebody else's ``@pipeline_def``; :func:`feed` serves both. See docs/interfaces.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode
from nvidia.dali.pipeline import Pipeline

from dali_pipes.augment import Augment, Draws, crop_resize, normalise, on_pixels, pack, twist

DType = Literal["float16", "float32", "uint8"]
DTYPES: dict[DType, types.DALIDataType] = {
    "float16": types.DALIDataType.FLOAT16,
    "float32": types.DALIDataType.FLOAT,
    "uint8": types.DALIDataType.UINT8,
}


@dataclass(frozen=True)
class GraphSpec:
    """What a graph is built for.

    Attributes:
        views: Clips per sample, V.
        size: Side of the square output, pixels.
        batch_size: Largest number of samples in a batch.
        encoded: Whether samples may come as packets, for DALI to decode.
        raw: Whether samples may come as frames decoded on the host.
        augment: Which operators are needed, and the normalisation.
        dtype: Type of the output.
        threads: Threads of the graph; on a GPU also of the decoder.
        device_id: CUDA device, or None for the CPU.
    """

    views: int
    size: int
    batch_size: int
    encoded: bool
    raw: bool
    augment: Augment
    dtype: DType
    threads: int
    device_id: int | None

    @property
    def plain(self) -> bool:
        """Whether views are only cut out, scaled, mirrored and normalised."""
        return not self.augment.colours and self.augment.blur == 0


@dataclass(frozen=True)
class Sample:
    """One sample, ready for the graph.

    Attributes:
        encoded: ``(N,)`` uint8 small video, or None if ``raw`` is given.
        frames: ``(F,)`` int32 numbers of the frames to decode from it.
        raw: ``(F, H, W, 3)`` uint8 frames decoded on the host, or None.
        orders: For each view, ``(T,)`` int32: which of the F frames it shows.
        draws: For each view, what is done to it.
    """

    encoded: NDArray[np.uint8] | None
    frames: NDArray[np.int32]
    raw: NDArray[np.uint8] | None
    orders: tuple[NDArray[np.int32], ...]
    draws: tuple[Draws, ...]

    def by_view(self) -> list[Sample]:
        """A sample of one view for each of them; they share the frames."""
        pairs = zip(self.orders, self.draws, strict=True)
        return [Sample(self.encoded, self.frames, self.raw, (order,), (draws,)) for order, draws in pairs]


# Stand-ins for the branch that a sample of a mixed batch does not take; the split before the decoder drops them.
_NO_BYTES = np.zeros(1, np.uint8)
_NO_FRAME = np.zeros((1, 1, 1, 3), np.uint8)
_NO_NUMBERS = np.zeros(1, np.int32)
_NO_PLACE = np.zeros(2, np.float32)


def build(spec: GraphSpec) -> Pipeline:
    """Builds the graph; feed it with :func:`feed`, and each run gives one output of ``(B, V, C, T, H, W)``."""
    pipeline: Pipeline = _graph(
        spec,
        batch_size=spec.batch_size,
        num_threads=spec.threads,
        device_id=spec.device_id,
        prefetch_queue_depth=1,  # the loader's own threads prepare the next batch while this one runs
        exec_dynamic=True,  # without it every output would be copied on its way to torch
    )
    pipeline.build()
    return pipeline


def feed(pipeline: Pipeline, spec: GraphSpec, samples: list[Sample], *, draws: bool = True) -> None:
    """Hands a batch to the graph. The samples' arrays are not copied: keep them until the run is over.

    Args:
        pipeline: Made by :func:`build`, or one that has our nodes for all of ``spec.views`` in it.
        spec: What the nodes were made for.
        samples: At most ``spec.batch_size`` of them.
        draws: Whether the graph has :func:`view_node`; False for one that takes its clips from :func:`gather_node` and
            so has no inputs for crops, flips and colours.
    """
    if spec.encoded:
        pipeline.feed_input("encoded", [_NO_BYTES if s.encoded is None else s.encoded for s in samples])
        pipeline.feed_input("frames", [_NO_NUMBERS if s.encoded is None else s.frames for s in samples])
    if spec.raw:
        pipeline.feed_input("raw", [_NO_FRAME if s.raw is None else s.raw for s in samples])
    if spec.encoded and spec.raw:
        pipeline.feed_input("is_raw", [np.array(s.raw is not None) for s in samples])
    for v in range(spec.views):
        pipeline.feed_input(f"order{v}", [s.orders[v] for s in samples])
        if not draws:
            continue
        inputs = pack([s.draws[v] for s in samples])
        pipeline.feed_input(f"region{v}", inputs.region)
        if spec.plain:
            places = [_place(s, v, spec.size) for s in samples]
            pipeline.feed_input(f"exact{v}", [np.array(place is not None) for place in places])
            pipeline.feed_input(f"place{v}", [_NO_PLACE if place is None else place for place in places])
        pipeline.feed_input(f"flip{v}", inputs.flip)
        if spec.augment.colours:
            pipeline.feed_input(f"colour{v}", inputs.colour)
        if spec.augment.blur > 0:
            pipeline.feed_input(f"blur{v}", inputs.blur)


def _place(sample: Sample, view: int, size: int) -> NDArray[np.float32] | None:
    """Where a view's region lies among whole pixels, for :func:`normalise`; None where it has to be scaled."""
    # How large the frames are is only known here where the host has decoded them.
    if sample.raw is None:
        return None
    height, width = sample.raw.shape[1:3]
    draws = sample.draws[view]
    if not on_pixels(draws, width, height, size):
        return None
    left, top = draws.left * width / max(width - size, 1), draws.top * height / max(height - size, 1)
    return np.array([top, left], np.float32)


@pipeline_def(enable_conditionals=True)
def _graph(spec: GraphSpec) -> DataNode:
    frames = frames_node(spec)
    # A list that grows, because DALI rewrites this function and cannot look into a generator expression.
    outputs = []
    for v in range(spec.views):
        outputs.append(view_node(frames, spec, v))
    # Joined here and not in torch: DALI keeps its memory from batch to batch, where torch would have the kernel clear
    # new pages for each.
    return fn.stack(*outputs) if spec.views > 1 else fn.expand_dims(outputs[0], axes=[0])


def frames_node(spec: GraphSpec) -> DataNode:
    """The frames of each sample, ``(F, H, W, 3)`` uint8 with layout ``FHWC``, wherever they were decoded.

    Makes the inputs ``encoded``, ``frames``, ``raw`` and ``is_raw``, as far as the spec needs them, so call it once
    in a graph. With both ``spec.encoded`` and ``spec.raw`` the graph must be made by
    ``@pipeline_def(enable_conditionals=True)``.
    """
    gpu = spec.device_id is not None
    if not spec.encoded:
        return _raw_frames(gpu)
    encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1, no_copy=True)
    numbers = fn.external_source(name="frames", dtype=types.DALIDataType.INT32, ndim=1)
    if not spec.raw:
        return _decoded_frames(encoded, numbers, gpu)
    raw = _raw_frames(gpu)
    is_raw = fn.external_source(name="is_raw", dtype=types.DALIDataType.BOOL, ndim=0)
    # DALI splits the batch here, sample by sample, and joins it again (if statements only, not expressions).
    if is_raw:  # noqa: SIM108
        frames = raw
    else:
        frames = _decoded_frames(encoded, numbers, gpu)
    return frames


def gather_node(frames: DataNode, view: int) -> DataNode:
    """One view's clip at its playback speed, ``(T, H, W, 3)`` uint8, nothing else done to it.

    Makes the input ``orderN`` of view N.
    """
    order = fn.external_source(name=f"order{view}", dtype=types.DALIDataType.INT32, ndim=1)
    return fn.sequence_rearrange(frames, new_order=order)


def view_node(frames: DataNode, spec: GraphSpec, view: int) -> DataNode:
    """One view's clip, gathered, cropped, resized, coloured, flipped and normalised: ``(3, T, size, size)``.

    Makes the inputs ``orderN``, ``regionN``, ``flipN`` and, as far as ``spec.augment`` needs them, ``colourN`` and
    ``blurN``, else ``exactN`` and ``placeN``, of view N. The graph must be made by
    ``@pipeline_def(enable_conditionals=True)``.
    """
    clip = gather_node(frames, view)
    region = fn.external_source(name=f"region{view}", dtype=types.DALIDataType.FLOAT, ndim=1)
    flip = fn.external_source(name=f"flip{view}", dtype=types.DALIDataType.INT32, ndim=1)
    dtype = DTYPES[spec.dtype]
    if spec.plain:
        exact = fn.external_source(name=f"exact{view}", dtype=types.DALIDataType.BOOL, ndim=0)
        place = fn.external_source(name=f"place{view}", dtype=types.DALIDataType.FLOAT, ndim=1)
        # What need not be scaled is copied once instead of twice. DALI splits the batch at if statements, not at
        # conditional expressions.
        if exact:
            output = normalise(clip, flip, spec.augment, dtype, size=spec.size, place=place)
        else:
            output = normalise(crop_resize(clip, region, spec.size), flip, spec.augment, dtype)
        return output
    clip = crop_resize(clip, region, spec.size)
    if spec.augment.colours:
        clip = twist(clip, fn.external_source(name=f"colour{view}", dtype=types.DALIDataType.FLOAT, ndim=1))
    if spec.augment.blur > 0:
        sigma = fn.external_source(name=f"blur{view}", dtype=types.DALIDataType.FLOAT, ndim=1)
        if sigma[0] > 0:  # noqa: SIM108 -- DALI splits the batch at if statements, not at conditional expressions
            clip = fn.gaussian_blur(clip, sigma=sigma[0])
        else:
            clip = clip
    return normalise(clip, flip, spec.augment, dtype)


def _raw_frames(gpu: bool) -> DataNode:
    raw = fn.external_source(name="raw", dtype=types.DALIDataType.UINT8, ndim=4, layout="FHWC", no_copy=True)
    return raw.gpu() if gpu else raw


def _decoded_frames(encoded: DataNode, numbers: DataNode, gpu: bool) -> DataNode:
    # affine=False: several graphs on one machine (ranks, the stream of positives) must not pin their threads to the
    # same cores.
    if gpu:
        return fn.decoders.video(encoded, frames=numbers, device="mixed", affine=False)
    return fn.decoders.video(encoded, frames=numbers, device="cpu")
