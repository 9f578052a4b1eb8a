"""Names in a statement are names: of tables, columns and aliases, which Django writes whatever they hold.

Django puts quotes around a name, unless it has some already, and up to 6.0 writes aliases as they are. A name that
holds a quote, or an alias that is none, would be text of the app's own, which no predicate reaches.
"""

import re
from collections.abc import Callable
from typing import Final

from tenantguard.binding import current_binding
from tenantguard.errors import StatementRefused
from tenantguard_django.orm.classify import nothing_to_guard

__all__ = ["is_alias", "may_render", "names_of"]

_QUOTED: Final = re.compile(r'"[^"%]*"(?:\."[^"%]*"){0,2}')
_MOST_KNOWN: Final = 10_000


def may_render() -> bool:
    """True where SQL of the app's own may stand in a statement: behind a door, or where there is nothing to guard."""
    binding = current_binding()
    if binding is None:
        return nothing_to_guard(binding)
    return binding.system is not None or binding.raw is not None


def is_alias(name: str) -> bool:
    """True for an alias that is one name and none of the barrier's own."""
    return name.isidentifier() and not name.lower().startswith("tenantguard_")


def names_of(plain: Callable[[str], str]) -> Callable[[str], str]:
    """Return a database's ``quote_name`` that refuses names which hold quotes, and remembers the others.

    Args:
        plain: the database's own.
    """
    known: dict[str, str] = {}

    def quote_name(name: str) -> str:
        quoted = known.get(name)
        if quoted is None:
            quoted = plain(name)
            if _QUOTED.fullmatch(quoted) is None:
                if not may_render():
                    raise StatementRefused(
                        "The statement holds a name with a quote or percent sign in it.", mend="Use another name."
                    )
            elif name.__class__ is str:
                if len(known) >= _MOST_KNOWN:
                    known.clear()
                known[name] = quoted
        return quoted

    return quote_name
