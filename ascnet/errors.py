"""Errors that a user can act on: each names the key or file, the value, and what would be right."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what was asked for; the command line prints it as one line and exits with status 2."""


class ConfigError(UserError):
    """A key or value of the configuration that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or does not belong to what it is used for."""


class TrainingError(UserError):
    """Training that cannot go on, such as a loss that is no longer a number."""
