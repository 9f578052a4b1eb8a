"""Every attack that writes."""

from tests.orm.attacks import changes, computed_keys, inserts, planted, unit_of_work, upserts
from tests.orm.attacks.harness import Attack
from tests.orm.attacks.own_writes import OWN

__all__ = ["ATTACKS", "OWN"]

ATTACKS: dict[str, Attack] = {
    f"{module.__name__.rpartition('.')[2]}: {name}": attack
    for module in (unit_of_work, planted, inserts, upserts, changes, computed_keys)
    for name, attack in module.ATTACKS.items()
}
