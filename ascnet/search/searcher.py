"""A query in, the videos most like it out: a video of the corpus by its row or address, or any other file."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ascnet.encoders import Encoder
from ascnet.errors import UserError
from ascnet.evaluate.store import weights_digest
from ascnet.precision import pick_device
from ascnet.search.describe import describe, open_stream
from ascnet.search.feature_file import FeatureFile
from ascnet.search.nearest import Backend, choose, nearest
from ascnet.weights import load_encoder
from dali_pipes import Corpus, VideoError, probe_videos


@dataclass(frozen=True)
class Hit:
    """One neighbour.

    Attributes:
        row: Row number in the corpus.
        uri: Address of the video.
        label: Its class, "" where unknown.
        score: Cosine similarity.
        start: First frame of the clip that is most like the query; -1 where videos have one vector.
    """

    row: int
    uri: str
    label: str
    score: float
    start: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"score": round(self.score, 6)}


class Searcher:
    """An index with its corpus and, for queries that are not in it, its encoder.

    Args:
        index: File of features.
        corpus: Corpus file; None: the one that the index was made of.
        checkpoint: Encoder of the queries; None: the file that the index was made with. Loaded when first needed.
        backend: Who searches; see `nearest.choose`.
        device: Where the encoder and torch's search run.
        threads: Decoding threads.
        many: Whether many queries are to come, for which a search that takes long to begin is worth it.

    Attributes:
        file: The index.
        corpus: The videos.
        told: Who searches, in words.

    Raises:
        UserError: The index or its corpus is missing, or the corpus is another one than the index was made of.
    """

    def __init__(
        self,
        index: str | Path,
        *,
        corpus: str | None = None,
        checkpoint: str | None = None,
        backend: Backend = "auto",
        device: str = "auto",
        threads: int | None = None,
        many: bool = False,
    ) -> None:
        self.file = FeatureFile.open(index)
        recipe = self.file.recipe
        if corpus is None and not Path(recipe.corpus).is_file():
            raise UserError(f"{recipe.corpus}: the corpus of {index} is not there any more; say --corpus PATH")
        self.corpus = Corpus.open(corpus or recipe.corpus)
        if self.corpus.fingerprint != recipe.fingerprint:
            raise UserError(
                f"{corpus or recipe.corpus}: corpus {self.corpus.fingerprint}, but {index} was made of corpus "
                f"{recipe.fingerprint}; give that one with --corpus, or run `ascnet embed` again"
            )
        self.device = pick_device(device)
        self.threads = threads
        self._places = self.file.places()
        self._rows, counts = np.unique(self._places["row"], return_counts=True)
        self._most = int(counts.max())
        self._index = choose(self.file, backend, device=self.device, many=many)
        self.told = self._index.told
        self._checkpoint = checkpoint
        self._encoder: Encoder | None = None

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers of the videos in the index, ascending."""
        return self._rows

    def has(self, row: int) -> bool:
        """Whether a row of the corpus is in the index."""
        at = int(np.searchsorted(self._rows, row))
        return at < len(self._rows) and int(self._rows[at]) == row

    def row_of(self, query: str) -> int | None:
        """The row whose address a query is; None where there is none."""
        uris = self.corpus.column("uri")
        found = np.flatnonzero((uris == query) | (uris == os.path.abspath(query)))
        row = int(found[0]) if len(found) else -1
        return row if self.has(row) else None

    def load_encoder(self) -> Encoder:
        """The encoder of the queries.

        Raises:
            UserError: It is missing, or has other weights than the one that the index was made with.
        """
        if self._encoder is None:
            recipe = self.file.recipe
            if self._checkpoint is None and not Path(recipe.checkpoint).is_file():
                raise UserError(
                    f"{recipe.checkpoint}: the checkpoint of {self.file.path} is not there any more; "
                    "say --checkpoint PATH"
                )
            path = self._checkpoint or recipe.checkpoint
            encoder = load_encoder(path, network=recipe.network, device=self.device)
            digest = weights_digest(encoder)
            if digest != recipe.weights:
                raise UserError(
                    f"{path}: checkpoint {digest}, but {self.file.path} was made with checkpoint {recipe.weights}; "
                    "give that one with --checkpoint, or run `ascnet embed` again"
                )
            self._encoder = encoder
        return self._encoder

    def of_row(self, row: int, k: int) -> list[Hit]:
        """Neighbours of a video of the index, itself left out.

        Raises:
            UserError: It is not in the index.
        """
        if not self.has(row):
            raise UserError(f"row {row} is not in {self.file.path}")
        first, end = np.searchsorted(self._places["row"], [row, row + 1])
        return self._search(self.file.vectors(int(first), int(end)), k, without=row)

    def of_file(self, query: str, k: int) -> list[Hit]:
        """Neighbours of any video: that of the corpus with this address, else the file, probed in another process.

        Raises:
            VideoError: It is no usable video.
            UserError: The encoder of the index is not there.
        """
        row = self.row_of(query)
        if row is not None:
            return self.of_row(row, k)
        local = query if "://" in query else os.path.abspath(query)
        return self.of_video(probe_videos([local], workers=1), k)

    def of_video(self, query: Corpus, k: int, *, decoder: Literal["auto", "host"] = "auto") -> list[Hit]:
        """Neighbours of a video that was probed already, the only row of `query`.

        Args:
            query: A corpus of one video.
            k: Neighbours.
            decoder: ``host``: by FFmpeg, which the probe has used as well, and by nothing else.

        Raises:
            VideoError: It cannot be used or decoded.
            UserError: The encoder of the index is not there.
        """
        video = query[0]
        if video.error:
            raise VideoError(video.uri, video.error)
        encoder, recipe = self.load_encoder(), self.file.recipe
        protocol = recipe.clips()
        with open_stream(query, protocol, device=self.device, threads=self.threads, decoder=decoder) as stream:
            (found,) = describe(encoder, stream, [0], protocol)
        if found.error:
            raise VideoError(video.uri, found.error)
        return self._search(found.vectors if recipe.per_clip else found.mean()[None], k)

    def _search(self, queries: NDArray[np.float32], k: int, without: int = -1) -> list[Hit]:
        """The k videos with the largest similarity of any of their vectors with any of the query's."""
        if k < 1:
            raise UserError(f"k={k} must be at least 1")
        # So many vectors belong to k videos and the query's own at least.
        with torch.inference_mode():
            found = nearest(self._index, queries, min((k + 1) * self._most, self.file.count))
        best: dict[int, tuple[float, int]] = {}
        for score, place in sorted(zip((-found.scores).ravel().tolist(), found.places.ravel().tolist(), strict=True)):
            if place >= 0:
                best.setdefault(int(self._places["row"][place]), (-score, int(self._places["start"][place])))
        best.pop(without, None)
        return [self._hit(row, *at) for row, at in list(best.items())[:k]]

    def _hit(self, row: int, score: float, start: int) -> Hit:
        return Hit(row, str(self.corpus.column("uri")[row]), str(self.corpus.column("label")[row] or ""), score, start)
