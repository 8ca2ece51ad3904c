"""A few hundred mutated inputs of all kinds; `bench/fuzz.py` runs thousands.

A failure names its case: `python bench/fuzz.py --seed S --only N` runs it again (N counts the
cases with real recordings where there are some).
"""

from __future__ import annotations

from collections import Counter

import pytest
from fuzz_cases import Outcome
from fuzz_inputs import SHARES, family_of
from fuzz_workers import Worker

SEED = 20_000
EACH = 25  # cases of a family
REAL = 50


def cases(family: str, count: int) -> list[int]:
    """Return the first numbers of this family."""
    found, number = [], 0
    while len(found) < count:
        if family_of(SEED, number) == family:
            found.append(number)
        number += 1
    return found


def broken(outcomes: list[Outcome]) -> str:
    return '\n'.join(
        f'--seed {each.seed} --only {each.number} ({each.family} {each.kind}): {failure}'
        for each in outcomes
        for failure in each.failures
    )


@pytest.mark.parametrize('family', [family for family in SHARES if family != 'real'])
def test_mutated_inputs_break_no_rule(made_worker: Worker, family: str) -> None:
    outcomes = [made_worker.run(SEED, number) for number in cases(family, EACH)]
    assert not broken(outcomes)
    # Mutations that are all refused at the door would test the door alone.
    results = Counter(each.result for each in outcomes)
    assert results['converted'] + results['partial'] > 0, results


@pytest.mark.bags
def test_mutated_real_recordings_break_no_rule(real_worker: Worker) -> None:
    assert not broken([real_worker.run(SEED, number) for number in cases('real', REAL)])
