"""The mutants fit the code as it is now, without running any of them."""

from tests.mutations.__main__ import mutants
from tests.mutations.accepted import ACCEPTED
from tests.mutations.selection import SELECTIONS


def test_every_mutant_is_another_code_that_compiles() -> None:
    everyone = [mutant for orm in SELECTIONS for mutant in mutants(orm)]
    assert len({str(mutant) for mutant in everyone}) == len(everyone)
    for mutant in everyone:
        compile(mutant.code, mutant.module, "exec")


def test_every_accepted_mutant_is_one() -> None:
    assert set(ACCEPTED) <= {str(mutant) for orm in SELECTIONS for mutant in mutants(orm)}
