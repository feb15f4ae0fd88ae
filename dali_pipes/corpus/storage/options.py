"""Settings of remote storage: how long to wait, how often to try again, where to keep what was fetched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dali_pipes.errors import DataError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class StorageOptions:
    """How videos that are no local files are read.

    Attributes:
        timeout: Seconds that one request may take.
        retries: Tries after the first one, each after a longer pause.
        block_bytes: Smallest piece that is fetched and kept, bytes.
        read_ahead_bytes: Most that one request fetches when a file is read on and on, bytes.
        cache_dir: Folder in which fetched blocks are kept, also between runs; None keeps none.
        cache_bytes: Size of that folder at which the blocks not used for longest are removed.
        protocols: fsspec's options by protocol, such as ``{"s3": {"anon": True, "endpoint_url": "http://..."}}``.
    """

    timeout: float = 10.0
    retries: int = 3
    block_bytes: int = 64 << 10
    read_ahead_bytes: int = 1 << 20
    cache_dir: str | None = None
    cache_bytes: int = 10 << 30
    # Never shown: there may be keys in it.
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("block_bytes", 512), ("read_ahead_bytes", 512), ("cache_bytes", 0), ("retries", 0)):
            if getattr(self, name) < least:
                raise DataError(f"storage {name}={getattr(self, name)}: must be {least} or more")
        if not self.timeout > 0:
            raise DataError(f"storage timeout={self.timeout}: must be more than 0 seconds")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> StorageOptions:
        """The settings that the DALI_PIPES_... variables make (docs/storage.md).

        Args:
            environment: Variables; None for those of this process.

        Raises:
            DataError: A value is not of its form.
        """
        variables = os.environ if environment is None else environment
        protocols: dict[str, dict[str, Any]] = {}
        for protocol, anonymous in (("s3", {"anon": True}), ("gs", {"token": "anon"})):
            settings: dict[str, Any] = {}
            prefix = f"DALI_PIPES_{protocol.upper()}"
            if endpoint := variables.get(f"{prefix}_ENDPOINT"):
                settings["endpoint_url"] = _address(f"{prefix}_ENDPOINT", endpoint)
            if _flag(f"{prefix}_ANON", variables.get(f"{prefix}_ANON", "")):
                settings |= anonymous
            if settings:
                protocols[protocol] = settings
        given: dict[str, Any] = {"protocols": protocols}
        for name, variable, read in (
            ("timeout", "DALI_PIPES_STORAGE_TIMEOUT", _seconds),
            ("retries", "DALI_PIPES_STORAGE_RETRIES", _count),
            ("cache_dir", "DALI_PIPES_CACHE_DIR", _text),
            ("cache_bytes", "DALI_PIPES_CACHE_BYTES", _size),
        ):
            if text := variables.get(variable):
                given[name] = read(variable, text)
        return cls(**given)


_configured: StorageOptions | None = None


def configure_storage(options: StorageOptions | None) -> None:
    """Use these settings in this process, and in the workers of an index made by it, instead of the environment's.

    Args:
        options: Settings; None goes back to the environment.
    """
    global _configured
    _configured = options


def storage_options() -> StorageOptions:
    """The settings in force."""
    return StorageOptions.from_environment() if _configured is None else _configured


def _text(variable: str, text: str) -> str:
    return text


def _address(variable: str, text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise DataError(f"{variable}={text}: must be an address, such as http://localhost:9000")
    return text.rstrip("/")


def _flag(variable: str, text: str) -> bool:
    if text.lower() not in ("", "0", "1", "false", "true"):
        raise DataError(f"{variable}={text}: must be 1 or 0")
    return text.lower() in ("1", "true")


def _seconds(variable: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise DataError(f"{variable}={text}: must be a number of seconds more than 0")
    return value


def _count(variable: str, text: str) -> int:
    if not text.isdigit():
        raise DataError(f"{variable}={text}: must be a whole number, 0 or more")
    return int(text)


def _size(variable: str, text: str) -> int:
    number = text.rstrip("KMGTkmgt")
    unit = text[len(number) :].upper()
    if not number.isdigit() or unit not in _UNITS:
        raise DataError(f"{variable}={text}: must be a number of bytes, such as 50000000000 or 50G")
    return int(number) * _UNITS[unit]
