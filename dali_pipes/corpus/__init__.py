"""What videos there are: the corpus file, and how it is made from a folder of videos."""

from __future__ import annotations

from dali_pipes.corpus.manifest import Corpus, Video

__all__ = ["Corpus", "Video"]
