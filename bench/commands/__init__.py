"""Commands of `python -m bench`, one a file."""

from __future__ import annotations

# Name -> what it measures. The module of that name is imported only when it is asked for.
COMMANDS = {
    "ablation": "the method without each of its parts: retrieval and playback speed from frozen features, over seeds",
    "bank": "searching and updating the memory bank beside plain torch and FAISS, as a share of the memory's bandwidth",
    "cache": "epochs of a loader with and without the cache that fills itself",
    "compare": "two results of one benchmark: what is better, worse or within noise; fails on a loss past a threshold",
    "decode": "clips per second of every decoder that is installed, outputs compared first",
    "embed": "clips per second of `ascnet embed` beside those of the loader alone, for the same requests",
    "fuzz": "damaged variants of real videos through index and loader: none may crash, hang or harm its neighbours",
    "loader": "clips per second of the loader beside PyTorch DataLoaders over other decoders, outputs compared first",
    "lookahead": "what searching for positives some steps ahead saves, and what it changes",
    "overhead": "CPU time a request of planning frames and cutting packets, on one core",
    "report": "the results of a folder as one page with charts and tables, and as pictures",
    "size": "a corpus of a million videos: opening it, drawing from it, and the memory of a long run",
    "stages": "what binds the loader and the training behind it, what would bind next, and what would help",
    "step": "the training step with data on the device and with the loader: what is lost to data, and what binds",
    "suite": "all that is measured on a machine, in one command, with a page of the results",
    "sweep": "threads, prefetch, decoder and look-ahead that are quickest on this machine and corpus, as a file",
}
