"""The sub-commands of `dali-pipes`, one module each.

A module has `add(commands)`, which adds its parser, and `run(arguments)`, which returns the exit code. What is slow to
import is imported in `run`, so that `--help` answers at once.
"""
