"""What a statement looks like, in a few words for errors: its kind and its tables, never its values."""

from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.sql.visitors import iterate

__all__ = ["shape_of"]

_MOST_TABLES: Final = 5


def shape_of(statement: Any) -> str:
    """Return for example ``"SELECT of documents, folders"``."""
    kind = str(getattr(statement, "__visit_name__", type(statement).__name__))
    kind = "text()" if kind.startswith("text") else kind.replace("_", " ").upper()
    names: dict[str, None] = {}
    try:
        target = getattr(statement, "table", None)
        for element in [target] if isinstance(target, Table) else []:
            names[str(element.name)] = None
        for part in iterate(statement):
            if isinstance(part, Table):
                names[str(part.name)] = None
            if len(names) > _MOST_TABLES:
                break
    except Exception:  # noqa: BLE001 - a hostile construct must not hide the refusal
        return kind
    shown = sorted(names)[:_MOST_TABLES]
    more = ", …" if len(names) > _MOST_TABLES else ""
    return f"{kind} of {', '.join(shown)}{more}" if shown else kind
