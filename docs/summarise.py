"""Mean and standard deviation over the seeds of some `retrieval.json` files, as a table in Markdown.

python docs/summarise.py docs/results/demo-seed*.json
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

SHOWN = ("R@1", "R@5", "R@10")


def table(files: list[Path]) -> str:
    """A row for each kind of features, a column for each k: mean and standard deviation (n - 1) over the files."""
    runs = [json.loads(path.read_text(encoding="utf-8"))["recall"] for path in files]
    lines = ["| features | " + " | ".join(SHOWN) + " |", "|---|" + "---|" * len(SHOWN)]
    for name in runs[0]:
        cells = []
        for k in SHOWN:
            values = [run[name][k] for run in runs]
            spread = statistics.stdev(values) if len(set(values)) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.1f}" + (f" ± {spread:.1f}" if spread else ""))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, help="retrieval.json of each seed")
    print(table(parser.parse_args().files))


if __name__ == "__main__":
    main()
