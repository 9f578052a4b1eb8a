"""Every attack on what outlives the moment in which it was read."""

from tests.orm.attacks import contexts, kept_results, own_state, sessions, tasks
from tests.orm.attacks.harness import Attack

__all__ = ["ATTACKS", "OWN"]

ATTACKS: dict[str, Attack] = sessions.ATTACKS | kept_results.ATTACKS | contexts.ATTACKS | tasks.ATTACKS
OWN = own_state.OWN | tasks.OWN
