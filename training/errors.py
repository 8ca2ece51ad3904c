"""Errors a user can act on: each says what was wrong, what is allowed and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(Exception):
    """One or more problems with what the user gave, all reported at once."""

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


class TrainingError(UserError):
    """A configuration, cache or checkpoint that cannot be used, or training that went wrong."""
