"""What the web page asks for, without the web: neighbours of a row or of a file that was sent, previews, a list."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ascnet.search.containers import HEAD_BYTES, looks_like_video
from ascnet.search.preview import Kept, preview
from ascnet.search.searcher import Hit, Searcher
from dali_pipes import VideoError, probe_videos

T = TypeVar("T")

# A query is a clip, not a film: what is larger is refused rather than decoded for minutes.
MAX_SIDE, MAX_FRAMES, PROBE_SECONDS = 4096, 20_000, 30.0
# Videos on a page of the list.
LISTED = 12


class Service:
    """Answers for one index.

    Args:
        searcher: The index.
        k: Neighbours of a query.

    Attributes:
        folder: Where files that are sent lie while they are looked at.
    """

    def __init__(self, searcher: Searcher, k: int) -> None:
        self.searcher, self.k = searcher, k
        self.folder = Path(tempfile.mkdtemp(prefix="ascnet-search-"))
        self._kept = Kept()
        # One thread for all that computes: each thread of torch's would bring a pool of its own.
        self._computing = ThreadPoolExecutor(1, thread_name_prefix="ascnet-search")

    def about(self) -> dict[str, Any]:
        """What the page says of the index."""
        file = self.searcher.file
        return {
            "videos": len(self.searcher.rows),
            "vectors": file.count,
            "dim": file.dim,
            "per_clip": file.recipe.per_clip,
            "checkpoint": file.recipe.weights,
            "corpus": file.recipe.fingerprint,
            "search": self.searcher.told,
        }

    def listing(self, first: int) -> dict[str, Any]:
        """Some videos of the index to begin with."""
        rows = self.searcher.rows
        first = max(0, min(first, len(rows) - 1)) // LISTED * LISTED
        return {
            "first": first,
            "total": len(rows),
            "size": LISTED,
            "videos": [self._named(int(row)) for row in rows[first : first + LISTED]],
        }

    def of_row(self, row: int) -> dict[str, Any]:
        """Neighbours of a video of the index.

        Raises:
            UserError: It is not in the index.
        """
        hits = self._compute(lambda: self.searcher.of_row(row, self.k))
        return {"query": self._named(row), "neighbours": self._hits(hits)}

    def of_file(self, path: Path) -> dict[str, Any]:
        """Neighbours of a file. It is decoded from end to end in a process of its own before anything else is done.

        Raises:
            VideoError: It is no video, or none that can be used; the reason names no path of this machine.
        """
        try:
            with path.open("rb") as file:
                if not looks_like_video(file.read(HEAD_BYTES)):
                    raise VideoError("", "not a video: it does not begin like any container of videos")
            query = probe_videos(
                [str(path)],
                thorough=True,
                timeout=PROBE_SECONDS,
                max_side=MAX_SIDE,
                max_frames=MAX_FRAMES,
                workers=1,
            )
            hits = self._compute(lambda: self.searcher.of_video(query, self.k, decoder="host"))
            picture = base64.b64encode(preview(query, 0)).decode()
        except VideoError as error:
            raise VideoError("", error.reason.replace(str(path), "the file")) from None
        return {"query": {"preview": f"data:image/webp;base64,{picture}"}, "neighbours": self._hits(hits)}

    def preview(self, row: int, *, still: bool) -> bytes | None:
        """A WebP file; None for a row that is not in the index.

        Raises:
            VideoError: The video cannot be decoded any more.
        """
        if not self.searcher.has(row):
            return None
        return self._kept.get((row, still), lambda: preview(self.searcher.corpus, row, still=still))

    def close(self) -> None:
        """Waits for what is being computed and removes all temporary files."""
        self._computing.shutdown(wait=True, cancel_futures=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _compute(self, job: Callable[[], T]) -> T:
        return self._computing.submit(job).result()

    def _named(self, row: int) -> dict[str, Any]:
        corpus = self.searcher.corpus
        # The name alone: the page has no use for folders of this machine.
        name = str(corpus.column("uri")[row]).partition("::")[0].rpartition("/")[2]
        return {"row": row, "name": name, "label": str(corpus.column("label")[row] or "")}

    def _hits(self, hits: list[Hit]) -> list[dict[str, Any]]:
        return [self._named(hit.row) | {"score": round(hit.score, 4), "start": hit.start} for hit in hits]
