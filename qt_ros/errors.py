"""Errors of the rooms around training; `UserError` catches these and training's own."""

from __future__ import annotations

from training.errors import UserError


class QtRosError(UserError):
    """One or more problems with what the user gave, all reported at once."""


class ContractError(QtRosError):
    """A contract that does not say what it must, or a robot or dataset that does not match it."""


class BagError(QtRosError):
    """A recording that cannot be read or holds nothing that the contract asks for."""


class DatasetError(QtRosError):
    """A dataset that cannot be opened, extended or matched with a contract."""


class SimError(QtRosError):
    """A simulated task or scene that does not exist."""
