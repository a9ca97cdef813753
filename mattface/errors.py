"""Every error a caller can meet, and the exit code the command line gives it.

A message says what was expected, what came, and what to do next.
"""

from __future__ import annotations


class MattfaceError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(MattfaceError, ValueError):
    """The call itself is wrong: unknown method, contradictory options, wrong argument type."""

    exit_code = 2


class LicenceError(UsageError):
    """A part was asked for whose licence forbids the use that was asked for, too."""


class InputError(MattfaceError, ValueError):
    """A picture that cannot be read or is of no supported kind, or an output that cannot be written."""

    exit_code = 3


class NoFaceError(MattfaceError):
    """No face (or not the face asked for) was found in a picture."""

    exit_code = 4


class WeightsError(MattfaceError):
    """Weights are missing, damaged, or belong to something else."""

    exit_code = 5


class DeviceError(MattfaceError):
    """The device or dtype asked for is not available here."""

    exit_code = 6


class Interrupted(MattfaceError):
    """The user ended the work early; what was done so far is kept, and the message says where."""

    exit_code = 130
