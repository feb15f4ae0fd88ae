"""Single files probed on the spot, each in a process that may hang or crash without harming this one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import av

from dali_pipes.corpus.engine import Lost, run_all
from dali_pipes.corpus.manifest import Corpus
from dali_pipes.corpus.probe import MAX_FRAMES, MAX_SIDE, Probed, probe_row
from dali_pipes.corpus.storage import StorageOptions, configure_storage, stat_source, storage_options


def probe_videos(
    uris: Sequence[str],
    *,
    thorough: bool = False,
    timeout: float = 60.0,
    max_side: int = MAX_SIDE,
    max_frames: int = MAX_FRAMES,
    workers: int | None = None,
) -> Corpus:
    """A corpus, in memory, of some files.

    Args:
        uris: Absolute paths, or addresses.
        thorough: Decode every frame: what takes a decoder down does so there, and not in the process that comes after.
        timeout: Seconds for one file.
        max_side: Largest width or height accepted, pixels.
        max_frames: Largest number of frames or packets accepted.
        workers: Processes; None for one per core.

    Returns:
        A row for each, in this order; the `error` of one that cannot be used says why.

    Raises:
        VideoError: A file is not there.
    """
    for uri in uris:
        stat_source(uri)  # one that is not there is a mistake, and no row
    options = {"thorough": thorough, "max_side": max_side, "max_frames": max_frames, "storage": storage_options()}
    rows: list[dict[str, Any]] = [{} for _ in uris]
    with closing(run_all(_probed, uris, options=options, timeout=timeout, workers=workers)) as results:
        for at, result in results:
            row = asdict(Probed(uris[at], error=result.reason)) if isinstance(result, Lost) else result
            rows[at] = {"label": "", "split": "", "group": ""} | row
    return Corpus.from_rows(rows)


def _probed(uri: str, *, storage: StorageOptions, **options: Any) -> dict[str, Any]:
    configure_storage(storage)
    # What FFmpeg has to say about a broken file is in the row, once.
    av.logging.set_level(None)
    return probe_row(uri, **options)
