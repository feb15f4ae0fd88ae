"""How the processes of a run learn that one of them is gone, wherever they are waiting for it.

Each process waits in a thread for a word of the one before it, the first for the last. A process that ends says how;
one that is killed cannot, but its connections close. The word goes round, and nobody waits for a process that is gone:
not in a collective, and not on a GPU, where the waiting would last until the time-out of NCCL.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time

import torch
import torch.distributed as dist

BYE, FAILED = -1, -2  # any other word is the number of the process that is gone
PATIENCE = 5.0
"""Seconds that a process has for telling its own error before it is ended, and that a checkpoint has to be written."""


class Lifeline:
    """The thread of one process.

    Attributes:
        advice: What the message says besides who is gone.
        busy: Held while a file is being written; the process is not ended before.
    """

    def __init__(self, rank: int, size: int, group: dist.ProcessGroup) -> None:
        self.advice = ""
        self.busy = threading.Lock()
        self._rank, self._size, self._group = rank, size, group
        self._leaving, self._said = False, threading.Lock()
        self._thread = threading.Thread(target=self._wait, daemon=True, name="lifeline")
        self._thread.start()

    def close(self) -> None:
        """Says goodbye, when all processes do."""
        self._say(BYE)
        self._thread.join(timeout=PATIENCE)

    def fail(self, *, perhaps_gone: bool) -> None:
        """Lets the others end because of an error of this process, which it is going to tell.

        Args:
            perhaps_gone: Whether the error may have come of another process that is gone; where it has, this process
                is ended by the thread, and the call does not return.
        """
        if perhaps_gone:
            self._thread.join(timeout=PATIENCE)
        self._leaving = True
        self._say(FAILED)
        # The word comes round. A thread that still waited for it would abort the process while Python ends.
        self._thread.join(timeout=PATIENCE)

    def _say(self, word: int) -> None:
        # The next process listens once; a second word would wait for it to end.
        if self._said.acquire(blocking=False):
            self._send(word)

    def _send(self, word: int) -> None:
        # Where that one is gone too, the one after it knows.
        with contextlib.suppress(RuntimeError):
            dist.send(torch.tensor([word]), (self._rank + 1) % self._size, group=self._group)

    def _wait(self) -> None:
        before = (self._rank - 1) % self._size
        word = torch.tensor([before])
        try:
            dist.recv(word, before, group=self._group)
        except RuntimeError:
            if not self._leaving:
                text = f"ascnet: process {before} of {self._size} is gone, so the others end too{self.advice}"
                print(text, file=sys.stderr, flush=True)
        if word[0] == BYE or self._leaving:
            return
        self._say(int(word[0]))
        if word[0] == FAILED:
            # All may have the same error: let this process get to its own, and then tell it.
            time.sleep(PATIENCE / 5)
            if self._leaving:
                return
        self.busy.acquire(timeout=12 * PATIENCE)
        os._exit(1)
