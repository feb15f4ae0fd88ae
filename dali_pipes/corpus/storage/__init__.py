"""Videos anywhere: local files, http(s), S3 and other object stores, members of uncompressed tar shards."""

from __future__ import annotations

from dali_pipes.corpus.storage.options import StorageOptions, configure_storage, storage_options
from dali_pipes.corpus.storage.source import Stat, open_source, stat_source

__all__ = ["Stat", "StorageOptions", "configure_storage", "open_source", "stat_source", "storage_options"]
