"""Errors a user can act on: each says what was wrong, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class QtRosError(Exception):
    """One or more problems with the user's input, all reported at once."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__(str(self))

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0]
        lines = '\n'.join(f'  - {problem}' for problem in self.problems)
        return f'{len(self.problems)} problems:\n{lines}'


class ContractError(QtRosError):
    """A contract that does not say what it must, or a robot or dataset that does not match it."""


class BagError(QtRosError):
    """A recording that cannot be read or holds nothing that the contract asks for."""


class DatasetError(QtRosError):
    """A dataset that cannot be opened, extended or matched with a contract."""


class SimError(QtRosError):
    """A simulated task or scene that does not exist."""
