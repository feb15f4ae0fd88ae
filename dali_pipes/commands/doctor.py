"""`dali-pipes doctor`: what this machine and these corpora can do, what is missing, and what to do about it."""

from __future__ import annotations

import argparse
import json

from dali_pipes.commands.engine_options import positive


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of this command."""
    parser = commands.add_parser(
        "doctor",
        help="say what this machine and some corpora can do, and what is in the way",
        description="Look at GPU, libraries, cores, memory and limits and, for each corpus, at its files, its decoders "
        "and at how fast clips come. Each finding is ok, a note or a problem; with a problem the exit code is 1.",
    )
    parser.add_argument("corpora", nargs="*", metavar="CORPUS", help="corpus files or folders of videos to look at")
    parser.add_argument(
        "--seconds", type=positive, default=3.0, metavar="S", help="how long to measure each corpus (default 3)"
    )
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; exit code 1 where one is a problem."""
    from dataclasses import asdict

    from dali_pipes.tools.findings import Finding, lines_of
    from dali_pipes.tools.machine import gpu, machine, software

    findings = [*gpu(), *software(), *machine()]
    if any(finding.level == "problem" for finding in findings):
        # Without torch, DALI or PyAV the loader cannot even be imported.
        why = "not looked at: first what is wrong above"
        findings += [Finding(path, "corpus", "problem", why) for path in arguments.corpora]
    elif arguments.corpora:
        from dali_pipes.stream import resolve_device
        from dali_pipes.tools.corpora import corpus_findings

        resolve_device(arguments.device)  # a name that no device has is a mistake in what was asked for
        for path in arguments.corpora:
            findings += corpus_findings(path, seconds=arguments.seconds, device=arguments.device)
    healthy = all(finding.level != "problem" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": healthy, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        print("\n".join(lines_of(findings)))
    return 0 if healthy else 1
