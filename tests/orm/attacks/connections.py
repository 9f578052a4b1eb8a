"""Every attack by way of connections, the driver, constructs that render themselves, names and unusual shapes."""

from typing import Any

from tests.orm.attacks import constructs, ddl, driver, names, queries, shapes, types
from tests.orm.attacks.harness import Attack

__all__ = ["ATTACKS", "OWN"]

ATTACKS: dict[str, Attack] = {
    name: attack
    for module in (driver, ddl, constructs, types, names, shapes, queries)
    for name, attack in module.ATTACKS.items()
}
OWN: dict[str, tuple[Attack, Any]] = {
    **{f"type {name}": case for name, case in types.OWN.items()},
    **{f"shape {name}": case for name, case in shapes.OWN.items()},
}
