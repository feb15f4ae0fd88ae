"""What `ascnet export` does."""

from __future__ import annotations

import argparse

from rich.console import Console

from ascnet.exporting.export import export_encoder


def export_command(args: argparse.Namespace) -> int:
    """Run `ascnet export` with its parsed arguments."""
    done = export_encoder(
        args.checkpoint, args.output, form=args.format, network=args.network, frames=args.frames, size=args.size
    )
    Console(highlight=False).print(
        f"wrote {done.path}\nwrote {done.card}\nchecked: largest difference from the encoder in memory "
        f"{done.difference:.2g} of its largest feature, allowed {done.tolerance:.2g}",
        markup=False,
        soft_wrap=True,
    )
    return 0
