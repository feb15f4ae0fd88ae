"""What is to be expected of a corpus on this machine: files, decoders, reading, and clips/s as measured."""

from __future__ import annotations

import os
from itertools import chain, repeat
from time import perf_counter

import numpy as np

from dali_pipes.corpus import Corpus
from dali_pipes.corpus.engine import default_workers
from dali_pipes.corpus.storage.address import local_path
from dali_pipes.decode.choice import survey
from dali_pipes.errors import DataError
from dali_pipes.loader import SpeedLoader
from dali_pipes.tools.cost import mean_cost
from dali_pipes.tools.findings import Finding, size
from dali_pipes.tools.videos import open_corpus

FRAMES, SPEEDS, SIZE = 16, (1.0, 2.0), 112
# So many videos are looked at; more would say the same and take minutes on a corpus of a million.
SAMPLE = 200
_STARTS = 32
_READ = 256 << 20
_BLOCK = 1 << 20
_BATCH = 16
# Half of the decoding for frames that nobody sees is worth a word.
_MUCH = 0.5


def corpus_findings(path: str | os.PathLike[str], *, seconds: float = 3.0, device: str = "auto") -> list[Finding]:
    """Look at one corpus; what is wrong with it becomes a finding and no error.

    Args:
        path: Corpus file, or folder of videos.
        seconds: How long to measure the loader.
        device: Where: as for `SpeedLoader`.
    """
    section = str(path)
    try:
        corpus = open_corpus(path, progress=False)
    except DataError as error:
        remedy = "" if "index" in str(error) else f"`dali-pipes index FOLDER -o {path}` makes one"
        return [Finding(section, "corpus", "problem", str(error), remedy)]
    usable = corpus.select(None)
    text = f"{len(usable)} of {len(corpus)} videos can be used, {corpus.duration[usable].sum() / 3600:.2f} hours"
    if not len(usable):
        remedy = "its column `error` says why; `dali-pipes inspect FILE` tells of one file"
        return [Finding(section, "videos", "problem", text, remedy, 0)]
    remedy = "its column `error` says why not the others" if len(usable) < len(corpus) else ""
    found = [Finding(section, "videos", "note" if remedy else "ok", text, remedy, len(usable))]
    sample = np.sort(np.random.default_rng(0).permutation(usable)[:SAMPLE])
    found += _files(section, corpus, sample)
    if found[-1].level == "problem":
        return found
    where = "gpu" if _on_gpu(device) else "cpu"
    found += _decoders(section, corpus, where)
    found.append(_reading(section, corpus, sample))
    found.append(_decoding(section, corpus, sample, where))
    found.append(_clips(section, corpus, seconds, device))
    return found


def _on_gpu(device: str) -> bool:
    from dali_pipes.stream import resolve_device

    return resolve_device(device).type == "cuda"


def _local(corpus: Corpus, sample: np.ndarray) -> dict[int, str]:
    """Paths of those that are files of their own on this machine, by row."""
    uris = corpus.column("uri")
    paths = ((row, local_path(uris[row])) for row in sample.tolist())
    return {row: path for row, path in paths if path is not None}


def _files(section: str, corpus: Corpus, sample: np.ndarray) -> list[Finding]:
    """Whether files are where the corpus says, and the same as when it was made."""
    rows = _local(corpus, sample)
    sizes = corpus.column("bytes")
    missing, changed = [], []
    for row, path in rows.items():
        try:
            if os.stat(path).st_size != sizes[row]:
                changed.append(path)
        except OSError:
            missing.append(path)
    of = f"of {len(rows)} looked at"
    remote = f", {len(sample) - len(rows)} are not local files" if len(rows) < len(sample) else ""
    value = {"looked_at": len(rows), "missing": len(missing), "changed": len(changed)}
    if missing:
        text = f"{len(missing)} {of} are missing, such as {missing[0]}{remote}"
        lost = len(missing) == len(rows) == len(sample)
        remedy = "index the folder again; until then others are shown in place of missing ones"
        return [Finding(section, "files", "problem" if lost else "note", text, remedy, value)]
    if changed:
        text = f"{len(changed)} {of} have another size than when they were indexed, such as {changed[0]}{remote}"
        return [Finding(section, "files", "note", text, "run `dali-pipes index` again", value)]
    if not rows:
        return [Finding(section, "files", "ok", f"not looked at: none of {len(sample)} is a local file", value=value)]
    text = f"all {len(rows)} looked at are there and have the size that was indexed{remote}"
    return [Finding(section, "files", "ok", text, value=value)]


def _decoders(section: str, corpus: Corpus, where: str) -> list[Finding]:
    found = []
    choices = survey(corpus, where)
    total = sum(choices.values())
    for choice, count in sorted(choices.items(), key=lambda pair: (pair[0].decoder, -pair[1])):
        text = f"{count} of {total} videos on the {where.upper()}: {choice.reason}"
        value = {"device": where, "decoder": choice.decoder, "videos": count, "reason": choice.reason}
        # Decoding on the host is what a CPU loader does; beside an idle NVDEC it is worth a word.
        spare = choice.decoder == "host" and where == "gpu"
        remedy = "`dali-pipes transcode` makes copies that the GPU decodes" if spare else ""
        found.append(Finding(section, f"decoder {choice.decoder}", "note" if spare else "ok", text, remedy, value))
    return found


def _reading(section: str, corpus: Corpus, sample: np.ndarray) -> Finding:
    """Read whole files, up to some amount and time."""
    paths = _local(corpus, sample).values()
    if not paths:
        return Finding(section, "reading", "ok", "not measured: the videos are not local files")
    read, begun = 0, perf_counter()
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                while block := file.read(_BLOCK):
                    read += len(block)
                    if read >= _READ or perf_counter() - begun > 2:
                        break
        except OSError:
            continue
        if read >= _READ or perf_counter() - begun > 2:
            break
    rate = read / max(perf_counter() - begun, 1e-9)
    text = f"{size(rate)}/s over {size(read)} of its files; what lay in the page cache came from memory"
    return Finding(section, "reading", "ok", text, value=rate)


def _decoding(section: str, corpus: Corpus, sample: np.ndarray, where: str) -> Finding:
    """How many frames are decoded for clips with random starts, and how many of them nobody sees."""
    videos = [corpus[row] for row in sample.tolist()]
    cost = mean_cost(videos, frames=FRAMES, speeds=SPEEDS, starts=_STARTS)
    share = cost.lead_in / cost.decoded
    gops = [video.frames / max(len(video.key_frames), 1) for video in videos]
    text = (
        f"{cost.decoded:.1f} frames decoded for the {cost.wanted:.1f} of a clip "
        f"(16 frames at 1x and 2x, {len(videos)} videos); {100 * share:.0f} % of decoding is lead-in before the first "
        f"wanted frame, GOPs are {np.mean(gops):.0f} frames long on average"
    )
    value = {"wanted": cost.wanted, "decoded": cost.decoded, "lead_in": cost.lead_in, "gop": float(np.mean(gops))}
    if share < _MUCH:
        return Finding(section, "decoding", "ok", text, value=value)
    from dali_pipes.tools.presets import advised

    return Finding(section, "decoding", "note", text, advised(where), value)


def _clips(section: str, corpus: Corpus, seconds: float, device: str) -> Finding:
    """Clips/s of a loader with its defaults, after a first batch that is not counted."""
    try:
        videos = len(corpus.select("train" if "train" in corpus.splits else None))
        visits = -(-_BATCH // max(videos, 1))
        with SpeedLoader(
            corpus, frames=FRAMES, size=SIZE, speeds=SPEEDS, batch_size=_BATCH, clips_per_video=visits, device=device
        ) as loader:
            batches = chain.from_iterable(repeat(loader))
            next(batches)
            clips, begun = 0, perf_counter()
            while not clips or perf_counter() - begun < seconds:
                clips += len(next(batches)) * len(SPEEDS)
            took = perf_counter() - begun
            replaced, threads = dict(loader.stats.bad), default_workers()
    except DataError as error:
        return Finding(section, "clips", "problem", str(error), "`dali-pipes inspect FILE` tells of one file")
    text = (
        f"{clips / took:.1f} clips/s, measured over {took:.1f} s: 16 frames of {SIZE} pixels at 1x and 2x, "
        f"{threads} threads, augmented"
    )
    value = {"clips_per_second": clips / took, "seconds": took, "clips": clips, "replaced": len(replaced)}
    if replaced:
        uri, reason = next(iter(replaced.items()))
        text += f"; {len(replaced)} videos could not be decoded, such as {uri}: {reason}"
        return Finding(section, "clips", "note", text, "index the folder again with --thorough", value)
    return Finding(section, "clips", "ok", text, value=value)
