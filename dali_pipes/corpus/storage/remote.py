"""Requests to remote file systems through fsspec, tried again where that may help, and failures in one line."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from dali_pipes.corpus.storage.address import scheme
from dali_pipes.corpus.storage.options import StorageOptions, storage_options
from dali_pipes.errors import VideoError, first_line

T = TypeVar("T")

_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
# Seconds before the second try; doubles with each further one.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0

_systems: dict[tuple[int, str, str], Any] = {}
_lock = threading.Lock()


class ShortAnswer(OSError):
    """Fewer bytes came than were asked for."""


def file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a remote uri, one for all threads of the process, and the path in it.

    Raises:
        VideoError: The protocol is unknown, its package is not installed, or its options are wrong.
    """
    protocol, options = scheme(uri), storage_options()
    given = dict(options.protocols.get(protocol, {}))
    # An index made again must see what is there now.
    given.setdefault("use_listings_cache", False)
    if protocol in ("http", "https"):
        # Ranges of a compressed answer would be ranges of something else.
        given.setdefault("headers", {"Accept-Encoding": "identity"})
    if protocol in ("s3", "s3a"):
        # One place tries again: here, where it is known how long that may take.
        usual = {"retries": {"max_attempts": 0}, "connect_timeout": options.timeout, "read_timeout": options.timeout}
        given["config_kwargs"] = usual | given.get("config_kwargs", {})
    key = (os.getpid(), protocol, repr(sorted(given.items())))
    with _lock:
        system = _systems.get(key)
        if system is None:
            try:
                import fsspec  # type: ignore[import-untyped]

                # fsspec would make a new one, with new connections, for each thread.
                system = fsspec.filesystem(protocol, skip_instance_cache=True, **given)
            except ImportError as error:
                extra = _EXTRAS.get(protocol, protocol)
                raise VideoError(uri, f"{protocol}:// needs a package: pip install 'dali-pipes[{extra}]'") from error
            except (TypeError, ValueError) as error:
                raise VideoError(uri, f"cannot be read from {protocol}://: {first_line(error)}") from error
            if protocol in ("s3", "s3a"):
                system.retries = 1
            _systems[key] = system
    return system, system._strip_protocol(uri)


def call(system: Any, timeout: float, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a method of a file system once.

    Args:
        system: A file system of `file_system`.
        timeout: Seconds that it may take.
        method: Its name, such as "cat_file".
        arguments: Passed on, as `named` are.
    """
    if not getattr(system, "async_impl", False):
        return getattr(system, method)(*arguments, **named)
    from fsspec.asyn import sync  # type: ignore[import-untyped]

    async def bounded() -> Any:
        return await asyncio.wait_for(getattr(system, f"_{method}")(*arguments, **named), timeout)

    return sync(system.loop, bounded)


def request(uri: str, system: Any, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a method of a file system, again where it fails in a way that may pass.

    Args:
        uri: For messages.
        system: A file system of `file_system`.
        method: Its name, such as "info".
        arguments: Passed on, as `named` are.

    Raises:
        VideoError: There is no such file, it may not be read, or the server did not answer.
    """
    return again(uri, lambda options: call(system, options.timeout, method, *arguments, **named))


def again(uri: str, once: Callable[[StorageOptions], T]) -> T:
    """Call a function until it succeeds, with growing pauses of random length in between.

    Raises:
        VideoError: It failed for good, or once more than `StorageOptions.retries` times.
    """
    options = storage_options()
    tries = options.retries + 1
    for number in range(1, tries + 1):
        try:
            return once(options)
        except VideoError:
            raise
        except Exception as error:
            final = _final(error)
            if final:
                raise VideoError(uri, final) from error
            if number == tries:
                words = _lost(error, options.timeout)
                count = f"{tries} tries" if tries > 1 else "1 try"
                raise VideoError(uri, f"server lost after {count}: {words}") from error
        pause = min(_FIRST_PAUSE * 2 ** (number - 1), _LONGEST_PAUSE)
        # Many workers that lost one server must not all come back at the same moment.
        time.sleep(pause * random.uniform(0.5, 1.0))
    raise AssertionError("unreachable")


def _final(error: BaseException) -> str:
    """Why trying again would not help, or ""."""
    if isinstance(error, FileNotFoundError):
        # fsspec calls whatever went wrong with an HTTP address "not found"; the cause tells.
        cause = error.__cause__
        if cause is None or getattr(cause, "status", None) in (404, 410) or _code(cause):
            return "no such file, folder or bucket"
        return _final(cause)
    if isinstance(error, PermissionError):
        return f"access denied: {first_line(error)}"
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return "no credentials found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or DALI_PIPES_S3_ANON=1"
    status = getattr(error, "status", None)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        if status == 416:
            return "is shorter than it was when it was indexed; index again"
        return f"the server answers {status} {getattr(error, 'message', '')}".rstrip()
    if isinstance(error, (OSError, asyncio.TimeoutError, TimeoutError)):
        return ""
    module = type(error).__module__
    if module.startswith(("aiohttp", "botocore.exceptions")) and "Validation" not in type(error).__name__:
        return "" if "InvalidURL" not in type(error).__name__ else f"no valid address: {first_line(error)}"
    return f"cannot be read: {first_line(error)}"


def _code(error: BaseException) -> bool:
    """Whether S3 said that something is not there."""
    answer = getattr(error, "response", None)
    code = answer.get("Error", {}).get("Code", "") if isinstance(answer, dict) else ""
    return code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound")


def _lost(error: BaseException, timeout: float) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"no answer within {timeout:g} s"
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return f"it answers {status} {getattr(error, 'message', '')}".rstrip()
    return first_line(error)
