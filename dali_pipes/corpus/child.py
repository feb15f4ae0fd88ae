"""A process of this program's own beside it, and the connection to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe


def start(module: str, *handles: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process that calls `serve(CONNECTION, *handles)` of a module; the process and this end of the connection.

    Args:
        module: Full name. Its `serve` takes file descriptors: of its end of the connection, then those given.
        handles: Further file descriptors that the process inherits.

    Raises:
        OSError: It cannot be started.
    """
    connection, other = Pipe()
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # One thread each: there are as many processes as cores already, and threads take address space.
    environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    inherited = [other.fileno(), *handles]
    code = f"from {module} import serve; serve({', '.join(map(str, inherited))})"
    # Not multiprocessing: its children import the caller's main module again. A session of its own keeps the terminal's
    # Ctrl-C from the process, which ends when its connection does.
    process = subprocess.Popen(
        [sys.executable, "-c", code], pass_fds=inherited, env=environment, start_new_session=True
    )
    other.close()
    return process, connection


def ending(code: int) -> str:
    """How a process that decodes has ended, in words, by its exit code (negative: the signal)."""
    if code < 0:
        return f"crashed the decoder ({signal.Signals(-code).name})"
    return f"ended the decoder (exit code {code})"
