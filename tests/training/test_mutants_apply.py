"""The places that `bench/mutants.py` breaks are still there, and cover every invariant."""

from __future__ import annotations

import ast

import pytest

from bench.mutants import MUTANTS, broken


@pytest.mark.parametrize('mutant', MUTANTS, ids=lambda mutant: mutant.what)
def test_a_mutant_still_finds_its_place(mutant):
    ast.parse(broken(mutant))  # broken in what it does, not in how it is written


def test_every_invariant_has_a_mutant():
    assert {mutant.invariant for mutant in MUTANTS} == set(range(1, 10))
