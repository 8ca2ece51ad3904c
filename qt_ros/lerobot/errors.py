"""What can be wrong with somebody else's dataset."""

from __future__ import annotations

from qt_ros.errors import DatasetError


class SourceError(DatasetError):
    """A set that cannot be read, or does not hold what the contract asks for."""


class EpisodeError(SourceError):
    """One episode that cannot be read; the others may be fine."""
