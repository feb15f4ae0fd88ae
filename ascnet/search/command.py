"""What `ascnet search` does: nearest videos of some queries as a table or JSON, or the web page."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ascnet.errors import UserError
from ascnet.search.searcher import Hit, Searcher


def search_command(args: argparse.Namespace) -> int:
    """Run `ascnet search` with its parsed arguments."""
    if bool(args.queries) == bool(args.serve):
        raise UserError("say a QUERY, or --serve for the web page" + (", not both" if args.serve else ""))
    if args.k < 1:
        raise UserError(f"-k {args.k}: must be at least 1")
    searcher = Searcher(
        args.index,
        corpus=args.corpus,
        checkpoint=args.checkpoint,
        backend=args.backend,
        device=args.device,
        threads=args.threads,
        many=args.serve,
    )
    # One that does not belong to the index is refused even where no query needs it.
    if args.checkpoint is not None or args.serve:
        searcher.load_encoder()
    if args.serve:
        from ascnet.search.server import serve

        return serve(searcher, host=args.host, port=args.port, k=args.k, limit=args.upload_limit * 10**6)
    found = {query: searcher.of_file(query, args.k) for query in dict.fromkeys(args.queries)}
    if args.json:
        print(json.dumps(as_json(searcher, found), indent=1))
    else:
        show(found, searcher.told)
    return 0


def as_json(searcher: Searcher, found: dict[str, list[Hit]]) -> dict[str, Any]:
    """What `--json` prints."""
    recipe = searcher.file.recipe
    return {
        "index": str(searcher.file.path),
        "checkpoint": recipe.weights,
        "corpus": recipe.fingerprint,
        "search": searcher.told,
        "queries": [{"query": query, "neighbours": [hit.as_dict() for hit in hits]} for query, hits in found.items()],
    }


def show(found: dict[str, list[Hit]], told: str) -> None:
    """Print a table for each query."""
    console = Console(highlight=False)
    for query, hits in found.items():
        # Names of files are no markup.
        table = Table("", "score", "label", "video", title=Text(query), title_justify="left")
        for number, hit in enumerate(hits, 1):
            place = "" if hit.start < 0 else f" from frame {hit.start}"
            table.add_row(str(number), f"{hit.score:.4f}", Text(hit.label), Text(hit.uri + place, overflow="fold"))
        console.print(table)
    console.print(f"search: {told}", markup=False)
