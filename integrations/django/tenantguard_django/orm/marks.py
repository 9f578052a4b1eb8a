"""How a model says whose rows it holds: a mark, as a class decorator or beside the model's name in a mapping.

A model has one class: owned (`TenantModel`, or `owned` with the name of its key field), a child of an owned model
(`owned_through` with the name of its foreign key), or shared by all (`shared`, with the reason beside it). Models that
were not written for this, such as those of ``django.contrib``, are classified by name: `classify`, or the setting
``TENANTGUARD["MODELS"]``. What the marks mean is in `tenantguard_django.orm.classify`. Nothing here needs settings or
loaded apps, so a settings module may import it.
"""

import uuid
from collections.abc import Mapping
from typing import Any, Final, TypeAlias, TypeVar, final

from tenantguard.errors import ConfigurationError

__all__ = ["CONTRIB_MODELS", "MARK", "WIDE", "Mark", "OwnedMark", "SharedMark", "ThroughMark", "WideMark", "as_mark"]
__all__ += ["owned", "owned_through", "shared", "wide"]

MARK: Final = "_tenantguard_mark"
WIDE: Final = "_tenantguard_wide"

GlobalRows: TypeAlias = bool | int | str | uuid.UUID
_M = TypeVar("_M", bound=type)


class Mark:
    """What a model is declared to be. Call it with a model to put it there: ``@shared("reference data")``."""

    __slots__ = ()

    def __call__(self, model: _M) -> _M:
        """Mark a model, or an abstract base for all that inherit from it.

        Args:
            model: the model class.

        Raises:
            ConfigurationError: it is no model, or is marked already.
        """
        if not hasattr(model, "_meta"):
            raise ConfigurationError(f"{model!r} is no Django model.", mend="Decorate the model class.")
        inherited = getattr(model, MARK, None)
        widens = isinstance(self, OwnedMark) and isinstance(inherited, OwnedMark)  # names dimensions, for example
        if MARK in model.__dict__ or (inherited is not None and not widens):
            raise ConfigurationError(
                f"The model {model.__qualname__} is classified twice.", mend="Keep one of the two."
            )
        setattr(model, MARK, self)
        return model


@final
class OwnedMark(Mark):
    """The mark of a model with a tenant key."""

    __slots__ = ("dimensions", "field", "global_rows", "wide")

    def __init__(
        self, field: str, dimensions: Mapping[str, str], global_rows: GlobalRows, wide: "WideMark | None" = None
    ) -> None:
        self.field = field
        self.dimensions = dict(dimensions)
        self.global_rows = global_rows
        self.wide = wide

    def __repr__(self) -> str:
        return f"owned({self.field!r})"


@final
class ThroughMark(Mark):
    """The mark of a child model."""

    __slots__ = ("dimensions", "field")

    def __init__(self, field: str, dimensions: Mapping[str, str]) -> None:
        self.field = field
        self.dimensions = dict(dimensions)

    def __repr__(self) -> str:
        return f"owned_through({self.field!r})"


@final
class SharedMark(Mark):
    """The mark of a model whose rows belong to no tenant, with the reason."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __repr__(self) -> str:
        return f"shared({self.reason!r})"


@final
class WideMark:
    """What a model says of dimensions that it has no key for. Call it with a model to put it there."""

    __slots__ = ("dimensions", "reason", "writable")

    def __init__(self, dimensions: frozenset[str], reason: str, writable: bool) -> None:
        self.dimensions = dimensions
        self.reason = reason
        self.writable = writable

    def __call__(self, model: _M) -> _M:
        """Open a model, or an abstract base and all that inherit from it.

        Raises:
            ConfigurationError: it is no model.
        """
        if not hasattr(model, "_meta"):
            raise ConfigurationError(f"{model!r} is no Django model.", mend="Decorate the model class.")
        setattr(model, WIDE, self)
        return model

    def __repr__(self) -> str:
        return f"wide({', '.join(map(repr, sorted(self.dimensions)))})"


def owned(
    field: str = "tenant_id",
    *,
    dimensions: Mapping[str, str] | None = None,
    global_rows: GlobalRows = False,
    wide: WideMark | None = None,
) -> OwnedMark:
    """Declare a model to be owned: ``@owned("organisation")``.

    Args:
        field: the field that holds the tenant: a string, integer or UUID field, or a foreign key to such a one. The
            barrier fills it on insert.
        dimensions: the fields of narrower dimensions, by dimension: ``{"workspace": "workspace_id"}``.
        global_rows: which rows belong to everybody: ``True`` for those whose key is NULL, or a value that is no
            tenant's id, such as ``"*"``. Every tenant reads them beside its own; they are written in a system context.
        wide: the dimensions that the model has no key for and is open in, for models that are classified by name; the
            decorator `wide` does the same.

    Raises:
        ConfigurationError: the field's name is no text.
    """
    if not isinstance(field, str) or not field:
        raise ConfigurationError("owned() needs the name of the key field.", mend='For example owned("organisation").')
    return OwnedMark(field, dimensions or {}, global_rows, wide)


def owned_through(field: str, *, dimensions: Mapping[str, str] | None = None) -> ThroughMark:
    """Declare a model to belong to the tenant of the row that a foreign key points to: ``@owned_through("document")``.

    It works at any depth. Children of multi-table inheritance and the tables that a ``ManyToManyField`` makes need no
    declaration of their own.

    Args:
        field: the foreign key's name; it may not be NULL.
        dimensions: the model's own fields of narrower dimensions; the parent is asked as well.

    Raises:
        ConfigurationError: the field's name is no text.
    """
    if not isinstance(field, str) or not field:
        raise ConfigurationError(
            "owned_through() needs the name of a foreign key.", mend='For example owned_through("document").'
        )
    return ThroughMark(field, dimensions or {})


def wide(*dimensions: str, reason: str, writable: bool = False) -> WideMark:
    """Let those who are narrowed in a dimension read a model without a key for it.

    Without this, an identity that is narrowed to a workspace is refused every model that has no workspace field, since
    nothing says which rows are its own: ``@wide("workspace", reason="plans: every workspace sees them")``. It stands
    beside the model's class: children ask their parent.

    Args:
        dimensions: the dimensions that the model is wider than.
        reason: why, in words that an auditor understands.
        writable: True where they may write to it as well.

    Raises:
        ConfigurationError: no dimension or no reason is given.
    """
    if not dimensions or not all(isinstance(name, str) and name and name != "tenant" for name in dimensions):
        raise ConfigurationError(
            "wide() needs dimensions inside the tenant.", mend='For example wide("workspace", reason="…").'
        )
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            "wide() needs a reason in words.",
            mend='For example: wide("workspace", reason="plans: every workspace sees them").',
        )
    return WideMark(frozenset(dimensions), reason.strip(), writable)


def shared(reason: str) -> SharedMark:
    """Declare a model to be shared by all tenants: ``@shared("countries: reference data")``.

    Its rows are read and written unscoped, also where no tenant is bound.

    Args:
        reason: why that is right, in words that an auditor understands.

    Raises:
        ConfigurationError: the reason is empty.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            "shared() needs a reason in words.", mend='For example: shared("countries: reference data").'
        )
    return SharedMark(reason.strip())


def as_mark(value: Any, label: str) -> Mark:
    """Return what stands beside a model's name as a mark.

    Args:
        value: a mark, or plain data for it: ``{"shared": reason}``, ``{"owned": field}``, ``{"through": field}``.
        label: the model's name, for the error.

    Raises:
        ConfigurationError: it is none of these.
    """
    if isinstance(value, Mark):
        return value
    makers: dict[str, Any] = {"shared": shared, "owned": owned, "through": owned_through}
    if isinstance(value, Mapping) and len(value) == 1 and (kind := next(iter(value))) in makers:
        made = makers[kind](value[kind])
        assert isinstance(made, Mark)
        return made
    raise ConfigurationError(
        f"The model {label} is classified as {type(value).__name__}.",
        mend='Give owned("field"), owned_through("field"), shared("why"), or {"shared": "why"} as plain data.',
    )


CONTRIB_MODELS: Final[Mapping[str, Mark]] = {
    "contenttypes.ContentType": shared("content types: the names of the project's own models"),
    "auth.Permission": shared("permissions: what the project's code defines, the same for everybody"),
    "sessions.Session": shared("sessions: found by a random key that only its browser knows"),
    "sites.Site": shared("sites: domains that the project serves"),
}
"""What the models of ``django.contrib`` may be in most projects: ``"MODELS": {**CONTRIB_MODELS, ...}``.

It counts only where a project states it. Users, groups and the admin's log are not among them, because whether users
belong to one tenant is for the project to say.
"""
