"""What is wrong with a contract's text."""

from __future__ import annotations

import pytest

from qt_ros.contract import Contract
from qt_ros.errors import ContractError


def problems_of(text: str) -> tuple[str, ...]:
    """Return the problems that parsing it reports; there must be some."""
    with pytest.raises(ContractError) as error:
        Contract.parse(text, origin='arm.yaml')
    return error.value.problems
