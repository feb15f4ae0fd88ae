"""Files that appear whole or not at all: written under a temporary name in the same folder, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file in place of another, or of none.

    Args:
        path: The file to be; its folder is there.

    Yields:
        An empty file in the same folder, to be written to by its name. It becomes `path` at the end of the block. When
        the block ends with an error, it is removed, and what was at `path` stays.

    Raises:
        OSError: The folder cannot be written to, or `path` is a folder.
    """
    path = Path(path)
    temporary = path.parent / f"{temporary_prefix(path)}{secrets.token_hex(6)}.tmp"
    try:
        # Not by tempfile, whose files only the user may read: the mask of the process says who may.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def temporary_prefix(path: Path) -> str:
    """How the names begin of files that are to become `path`; they end in ".tmp"."""
    # A name may have 255 bytes, a character up to 4.
    return f".{path.name[:32]}."
