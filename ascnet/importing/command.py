"""What `ascnet import-weights` does: convert a file, and show what became of each of its tensors."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from ascnet.importing.convert import Imported, import_weights


def import_command(args: argparse.Namespace) -> int:
    """Run `ascnet import-weights` with its parsed arguments."""
    done = import_weights(args.file, args.source, args.output)
    console = Console(highlight=False)
    options = "".join(f", {name} {value}" for name, value in done.options.items())
    console.print(_table(done, f"{done.encoder}, width {done.width:g}{options}, from {args.source}"))
    if args.keys:
        for name, ours in done.account.used.items():
            console.print(f"{name} -> {ours}", markup=False, soft_wrap=True)
        for name, reason in done.account.dropped.items():
            console.print(f"{name}: dropped, {reason}", markup=False, soft_wrap=True)
    console.print(f"wrote {done.path}", markup=False, soft_wrap=True)
    return 0


def _table(done: Imported, title: str) -> Table:
    account = done.account
    table = Table(title=title, title_justify="left")
    table.add_column("in the file")
    table.add_column("tensors", justify="right")
    table.add_column("names")
    table.add_row("used", str(len(account.used)), _groups(account.used.values()))
    for reason in dict.fromkeys(account.dropped.values()):
        names = [name for name, why in account.dropped.items() if why == reason]
        table.add_row(f"dropped: {reason}", str(len(names)), _groups(names))
    for reason in dict.fromkeys(done.beside.values()):
        names = [name for name, why in done.beside.items() if why == reason]
        table.add_row(f"dropped: {reason}", "-", ", ".join(names))
    table.add_row("missing", "0", "")
    return table


def _groups(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
