"""Mutants that no test can turn red, each with the reason."""

from typing import Final

__all__ = ["ACCEPTED"]

ACCEPTED: Final[dict[str, str]] = {
    "orm/execution: _decide(): without the part identity is None": (
        "No block binds nobody outside of a system context, and the next part would then fail as well."
    ),
    "orm/execution: _decide(): without the part self.isddl": (
        "DDL is compiled by another compiler, which is refused two checks later; this one says it better."
    ),
    "orm/execution: _decide(): without the part not isinstance(compiled, ScopedCompiler)": (
        "The engine's own compiler, which is asked for beside it, is a scoped one."
    ),
    "orm/execution: _decide(): without the part compiled.unscoped": (
        "What is unscoped has the mode of system contexts, which no tenant's binding has."
    ),
    "orm/execution: a permit takes the short way": (
        "What compiles under a permit has a mode, and is therefore never sound for the short way."
    ),
    'orm/compiler: _is_entity(): without the part any(_is_entity(one) for one in getattr(entity, "_entities", ()))': (
        "SQLAlchemy takes no entity into a Bundle; it stands for a version that does."
    ),
    "orm/predicates: the tenant outlives the permit": (
        "A block that holds a permit keeps the identity of what is around it, so that both have one tenant."
    ),
    "orm/key_types: convert(): never if len(tenant_id) > 20": (
        "The next check refuses what is larger than the column; this one spares the conversion of a long number."
    ),
    "orm/lifts: holds(): never if not self._lifts": "The short way of what follows: none of no lifts holds.",
    "orm/compiler: an unscoped statement is sound": "It has the mode of system contexts, which is looked at beside it.",
}
"""By the words that name a mutant, as ``"orm/writes: visit_insert(): …"``."""
