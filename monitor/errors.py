"""The exceptions streamgauge raises on purpose, and the exit code each stands for.

- StreamgaugeError
    - UsageError           wrong usage or configuration                      exit 2
        - SettingsError    streamgauge.yml is wrong, every complaint at once
    - UnreachableError     could not reach what it needs at all              exit 3
        - TransportError   one request to one broker failed (never leaves observe/)
    - SandboxError         the sandbox could not be started                  exit 3

A message says what was tried, on what, and what to do, in one line without secrets.
"""

from __future__ import annotations


class StreamgaugeError(Exception):
    """Base of all: its text is one line a person can act on."""

    exit_code = 3


class UsageError(StreamgaugeError):
    """Wrong usage or configuration."""

    exit_code = 2


class SettingsError(UsageError):
    """The configuration is wrong; ``complaints`` has one line each."""

    def __init__(self, complaints: list[str]) -> None:
        self.complaints = complaints
        super().__init__("\n".join(complaints))


class UnreachableError(StreamgaugeError):
    """What the command needs could not be reached at all."""


class TransportError(UnreachableError):
    """One request to one broker failed; ``why`` is a ``monitor.model.Why`` code or the broker's error code."""

    def __init__(self, message: str, why: int) -> None:
        self.why = why
        super().__init__(message)


class SandboxError(StreamgaugeError):
    """The sandbox could not be started or used."""
