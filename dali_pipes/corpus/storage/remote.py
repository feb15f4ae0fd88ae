"""Requests to remote file systems through fsspec, tried again where that may help, and failures in one line."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

from dali_pipes.corpus.storage.address import scheme
from dali_pipes.corpus.storage.options import StorageOptions, storage_options
from dali_pipes.errors import VideoError, first_line

T = TypeVar("T")

_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "gs": "gs"}
# Two names of one store. What is listed under the second is named by the first, so both must have the same options.
_SECOND_NAMES = {"s3a": "s3", "gcs": "gs"}
# Seconds before the second try; doubles with each further one.
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 8.0
# gcsfs's switch for buckets in a single zone, which are read over gRPC alone.
_ZONAL = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"
# Google's words for a token that ended a moment ago, which the next try renews.
_STALE = "Invalid Credentials"

_systems: dict[tuple[int, str, str], Any] = {}
_lock = threading.Lock()


class ShortAnswer(OSError):
    """Fewer bytes came than were asked for."""


def file_system(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a remote uri, one for all threads of the process, and the path in it.

    Raises:
        VideoError: The protocol is unknown, its package is not installed, or its options are wrong.
    """
    named, options = scheme(uri), storage_options()
    protocol = _SECOND_NAMES.get(named, named)
    given: dict[str, Any] = {}
    for name, settings in options.protocols.items():
        if _SECOND_NAMES.get(name, name) == protocol:
            given |= settings
    # An index made again must see what is there now.
    given.setdefault("use_listings_cache", False)
    if protocol in ("http", "https"):
        # Ranges of a compressed answer would be ranges of something else.
        given.setdefault("headers", {"Accept-Encoding": "identity"})
    if protocol == "s3":
        # One place tries again: here, where it is known how long that may take.
        usual = {"retries": {"max_attempts": 0}, "connect_timeout": options.timeout, "read_timeout": options.timeout}
        given["config_kwargs"] = usual | given.get("config_kwargs", {})
    key = (os.getpid(), protocol, repr(sorted(given.items())))
    with _lock:
        system = _systems.get(key)
        if system is None:
            try:
                # fsspec would make a new one, with new connections, for each thread.
                system = _class(protocol)(skip_instance_cache=True, **given)
            except ImportError as error:
                extra = _EXTRAS.get(protocol, protocol)
                raise VideoError(uri, f"{named}:// needs a package: pip install 'dali-pipes[{extra}]'") from error
            except Exception as error:
                # Among them what the stores' own packages raise for a file of keys that is not one.
                raise VideoError(uri, f"cannot be read from {named}://: {first_line(error)}") from error
            if protocol == "s3":
                system.retries = 1
            if protocol == "gs":
                _try_once(system)
            _systems[key] = system
    return system, system._strip_protocol(uri)


def _class(protocol: str) -> Any:
    if protocol == "gs" and os.environ.get(_ZONAL, "").lower() not in ("1", "true"):
        # What gcsfs registers instead asks over gRPC, before it reads, of which kind a bucket is. Only Google's own
        # endpoint speaks that, and where the answer is no, each read asks again for up to a minute.
        from gcsfs.core import GCSFileSystem

        return GCSFileSystem
    import fsspec  # type: ignore[import-untyped]

    return fsspec.get_filesystem_class(protocol)


def _try_once(system: Any) -> None:
    """Take away gcsfs's own tries: six, with pauses that add up to half a minute, and tracebacks in its log."""
    once = getattr(type(system)._request, "__wrapped__", None)
    if once is not None:
        system._request = MethodType(once, system)


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
    refused = _refused(error)
    if refused:
        return refused
    status, words = _answered(error)
    if 400 <= status < 500 and status not in (408, 425, 429) and words != _STALE:
        if status == 401 and _of_gcsfs(error):
            return f"access denied: {words}; set GOOGLE_APPLICATION_CREDENTIALS to a file with keys"
        if status == 416:
            return "is shorter than it was when it was indexed; index again"
        return f"the server answers {status} {words}".rstrip()
    if _of_gcsfs(error) and status:
        return ""
    if isinstance(error, (OSError, asyncio.TimeoutError, TimeoutError)):
        return ""
    module = type(error).__module__
    if module == "google.auth.exceptions":
        # Without an answer, whatever holds the keys may be there again in a moment.
        return "" if type(error).__name__ == "TransportError" else f"access denied: {first_line(error)}"
    if module.startswith(("aiohttp", "botocore.exceptions")) and "Validation" not in type(error).__name__:
        return "" if "InvalidURL" not in type(error).__name__ else f"no valid address: {first_line(error)}"
    return f"cannot be read: {first_line(error)}"


def _of_gcsfs(error: BaseException) -> bool:
    return type(error).__module__.startswith("gcsfs")


def _answered(error: BaseException) -> tuple[int, str]:
    """Status and words of the answer that an error of HTTP is about; 0 where it is about none."""
    status, words = getattr(error, "status", None), str(getattr(error, "message", ""))
    if _of_gcsfs(error):
        # gcsfs calls it a code, and writes it behind its message as well.
        status = getattr(error, "code", None)
        words = words.removesuffix(f", {status}")
    # The words may be a whole page of a proxy.
    return (status if isinstance(status, int) else 0), next(iter(words.strip().splitlines()), "")


def _refused(error: BaseException) -> str:
    """Why Google's store refuses, where gcsfs says so in an error of Python's: the address, then the server's words."""
    head, _, words = str(error).partition("\n")
    words = next(iter(words.strip().splitlines()), "") or head
    if type(error) is OSError and head.startswith("Forbidden: "):
        return f"access denied: {words}"
    if type(error) is ValueError and head.startswith("Bad Request: "):
        return f"the server refuses: {words}"
    return ""


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
    status, words = _answered(error)
    if status:
        return f"it answers {status} {words}".rstrip()
    return first_line(error)
