"""Memory that is free goes back to the system, no more often than told."""

from __future__ import annotations

import subprocess
import sys

from dali_pipes.heap import HeapTrimmer

_FRAYED = """
import ctypes
from dali_pipes.heap import HeapTrimmer

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
pieces = [libc.malloc(60_000) for _ in range(2000)]
for piece in pieces:
    ctypes.memset(piece, 1, 60_000)
full = resident()
for piece in pieces[:-1]:  # the last one keeps the heap's end where it is
    libc.free(ctypes.c_void_p(piece))
kept = resident()
assert HeapTrimmer(0.0)()
print(full, kept, resident())
"""


def test_what_is_free_inside_the_heap_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", _FRAYED], capture_output=True, text=True, check=True, timeout=60)
    full, kept, after = map(int, done.stdout.split())
    assert kept > full - 20e6, "nothing to give back"
    assert after < kept - 80e6


def test_it_waits_for_its_time() -> None:
    trim = HeapTrimmer(1000.0)
    assert not trim()
    trim.interval = 0.0
    trim._next = 0.0
    assert trim() and trim()
