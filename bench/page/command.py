"""The command that made a result, as it would be typed."""

from __future__ import annotations

import argparse
import importlib
import shlex
from collections.abc import Mapping
from typing import Any

from bench.page.read import Result


def command_of(result: Result) -> str:
    """The whole command with every argument, so that it says the same when a default has changed since.

    The corpus is named as the result has it, which leaves out the folder.
    """
    said = result.data.get("command")
    if isinstance(said, str) and said:
        return said
    arguments = result.data.get("arguments")
    given = {str(key): value for key, value in arguments.items()} if isinstance(arguments, Mapping) else {}
    given.pop("command", None)
    words = [f"python -m bench {result.benchmark}"]
    corpus = result.data.get("corpus")
    if isinstance(corpus, Mapping) and corpus.get("name"):
        words.append(shlex.quote(str(corpus["name"])))
    actions = _actions(result.benchmark)
    for key, value in given.items():
        action = actions.get(key)
        if value is None or value is False or value in ([], {}, ""):
            continue
        option = f"--{key.replace('_', '-')}" if action is None else next(iter(action.option_strings), "")
        text = "" if value is True else _text(value, " " if action is not None and action.nargs is not None else ",")
        words.append(" ".join(word for word in (option, text) if word))
    return " ".join(words)


def _actions(benchmark: str) -> Mapping[str, argparse.Action]:
    """What the command takes, by destination; {} of a command that there is no longer, or not here."""
    from bench.commands import COMMANDS

    if benchmark not in COMMANDS:
        return {}
    parser = argparse.ArgumentParser()
    try:
        importlib.import_module(f"bench.commands.{benchmark}").add_arguments(parser)
    except ImportError:
        return {}
    # All that argparse tells of its arguments to the outside is the usage; their list has no public name.
    return {action.dest: action for action in parser._actions}


def _text(value: Any, between: str) -> str:
    if isinstance(value, Mapping):
        return shlex.quote(",".join(f"{key}={_text(one, ',')}" for key, one in value.items()))
    if isinstance(value, (list, tuple)):
        return between.join(_text(one, ",") for one in value)
    if isinstance(value, float):
        return f"{value:g}"
    return shlex.quote(str(value))
