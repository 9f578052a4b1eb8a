"""Names are quoted, whatever they are.

SQLAlchemy renders a name without quotes where its author says so (``quoted_name(name, quote=False)``), and some
collations always. Such a name could hold a clause. So names that are rendered as they are must be plain words.
"""

import re
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import DontWrapMixin

from tenantguard.context import current_system
from tenantguard.errors import StatementRefused

if TYPE_CHECKING:
    from sqlalchemy.sql.compiler import IdentifierPreparer
else:
    IdentifierPreparer = object

__all__ = ["LateRefusal", "guard_identifiers"]

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,127}", re.ASCII)
_TRANSLATED: Final = re.compile(r"__\[SCHEMA_[A-Za-z0-9_$ -]{1,128}\]", re.ASCII)
"""What SQLAlchemy writes for a schema that is translated, and quoted, when the statement runs."""
_PLAIN_COLLATION: Final = re.compile(r"\"?[A-Za-z_][A-Za-z0-9_.-]{0,127}\"?", re.ASCII)


class LateRefusal(StatementRefused, DontWrapMixin):
    """A refusal where parameters are collected, which SQLAlchemy must not wrap together with their values."""


def _refuse(what: str) -> StatementRefused:
    return LateRefusal(
        f"The statement has {what} that is rendered without quotes and is no plain word.",
        mend="Leave quote=False out, so that SQLAlchemy quotes it.",
    )


class GuardedPreparer(IdentifierPreparer):
    """Refuses names that would be rendered as they are and are more than a word. Mixed in before a dialect's own."""

    def quote(self, ident: str, *args: Any) -> str:
        if type(ident) is str and (known := self._strings.get(ident)) is not None:
            return known  # as SQLAlchemy does, a little earlier: this is asked for every name
        bare = getattr(ident, "quote", None) is False and not _PLAIN.fullmatch(ident)
        if bare and not _TRANSLATED.fullmatch(ident) and current_system() is None:
            raise _refuse("a name")
        return super().quote(ident, *args)

    def format_collation(self, collation_name: Any, *args: Any, **kwargs: Any) -> str:
        if not _PLAIN_COLLATION.fullmatch(str(collation_name)) and current_system() is None:
            raise _refuse("a collation")
        return super().format_collation(collation_name, *args, **kwargs)


def guard_identifiers(dialect: Any) -> None:
    """Let a dialect's names be quoted by a guarded preparer, also one that it makes anew when it connects."""
    base = dialect.preparer
    guarded = type(f"Guarded{base.__name__}", (GuardedPreparer, base), {"__module__": __name__})
    dialect.preparer = guarded
    dialect.identifier_preparer.__class__ = guarded
