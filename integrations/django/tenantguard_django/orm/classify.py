"""What a table is to the barrier: owned by tenants, a child of such a table, or shared; nothing else may be touched.

Django's compilers know tables by their names, so classes are kept by name. They are read from the marks on models
(`tenantguard_django.orm.marks`), from `classify` and from the setting ``TENANTGUARD["MODELS"]``. A table of no
installed model is unclassified, and so is one of two models that name the same table and are classified differently.
What Django makes itself follows from what it is made of: the tables of multi-table inheritance belong to their
parent's, those of a ``ManyToManyField`` to the ends that belong to tenants.
"""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.exceptions import AppRegistryNotReady
from django.core.signals import setting_changed
from django.db.models.signals import class_prepared

from tenantguard.binding import Binding
from tenantguard.errors import ConfigurationError, TenantGuardError, UnclassifiedTable
from tenantguard_django.orm.keys import Key
from tenantguard_django.orm.kinds import NO_GLOBAL, Child, Kind, Link, Owned, Shared
from tenantguard_django.orm.marks import (
    MARK,
    WIDE,
    Mark,
    OwnedMark,
    SharedMark,
    ThroughMark,
    WideMark,
    as_mark,
    shared,
)

__all__ = [
    "NO_GLOBAL",
    "Child",
    "Kind",
    "Link",
    "Owned",
    "Shared",
    "belongs_to_tenants",
    "classify",
    "installed_tables",
    "kind_of",
    "kind_of_model",
    "links_of",
    "nothing_to_guard",
    "watched_columns",
]

logger: Final = logging.getLogger("tenantguard.orm.classify")
_NAME: Final = re.compile(r'(?:"?[\w$ -]+"?\.)?"?[\w$ -]+"?')


_declared: Final[dict[str, Mark]] = {}
_kinds: dict[str, Kind | TenantGuardError] = {}
_models: dict[str, list[Any]] = {}
_warned: list[bool] = []
_anything_owned: list[bool] = []
"""What `nothing_to_guard` goes by, once it was asked for."""


def classify(models: Mapping[str, Any]) -> None:
    """Classify models by name, for those of other packages: ``classify({"taggit.Tag": shared("words")})``.

    The setting ``TENANTGUARD["MODELS"]`` does the same.

    Args:
        models: marks by ``"app_label.Model"``.

    Raises:
        ConfigurationError: a value is no mark, or a model is classified otherwise already.
    """
    for label, value in models.items():
        mark = as_mark(value, label)
        if repr(_declared.setdefault(label.lower(), mark)) != repr(mark):
            raise ConfigurationError(f"The model {label} is classified twice.", mend="Keep one of the two.")
    _forget()


def _forget(**_: Any) -> None:
    _kinds.clear()
    _models.clear()
    _anything_owned.clear()


class_prepared.connect(_forget, dispatch_uid="tenantguard_django.classify")
setting_changed.connect(_forget, dispatch_uid="tenantguard_django.classify")


def _by_name(model: Any) -> Mark | None:
    label = model._meta.label_lower
    configured = getattr(settings, "TENANTGUARD", None)
    named = configured.get("MODELS") if isinstance(configured, Mapping) else None
    for name, value in named.items() if isinstance(named, Mapping) else ():
        if isinstance(name, str) and name.lower() == label:
            return as_mark(value, name)
    return _declared.get(label)


def _normal(table: str) -> str:
    """Return a table's name as all ways to write it: without schema and quotes, in lower case."""
    return table.replace('"', "").rsplit(".", 1)[-1].lower()


def installed_tables() -> dict[str, list[Any]]:
    """Return the installed models by their table's name, without schema and quotes, in lower case."""
    if not _models:
        apps.check_models_ready()
        found: dict[str, list[Any]] = {}
        for model in apps.get_models(include_auto_created=True):
            if not model._meta.proxy:
                found.setdefault(_normal(model._meta.db_table), []).append(model)
        _models.update(found)
    return _models


def kind_of(table: str) -> Kind:
    """Return what a table is to the barrier.

    Args:
        table: its name, as Django's compilers have it.

    Raises:
        UnclassifiedTable: it is neither owned nor shared, or of no installed model.
        ConfigurationError: its declaration can't serve.
    """
    kind = _kinds.get(table)
    if kind is None:
        try:
            kind = _read(table)
        except (UnclassifiedTable, ConfigurationError) as error:
            kind = error
        _kinds[table] = kind
    if isinstance(kind, TenantGuardError):
        raise type(kind)(kind.message, mend=kind.mend)
    return kind


def kind_of_model(model: Any) -> Kind:
    """Return what a model's own table is. Raises as `kind_of` does."""
    return kind_of(model._meta.concrete_model._meta.db_table)


def belongs_to_tenants(model: Any) -> bool:
    """True unless a model is shared."""
    try:
        return not isinstance(kind_of_model(model), Shared)
    except TenantGuardError:
        return True


def nothing_to_guard(binding: Binding | None) -> bool:
    """True where nobody is bound and all installed models are shared by declaration.

    With somebody bound there are tenants, whose rows may stand in tables that no model of this project names.
    """
    if binding is not None:
        return False
    if not _anything_owned:
        try:
            models = [model for models in installed_tables().values() for model in models]
        except AppRegistryNotReady:
            return False
        owned = not models or any(map(belongs_to_tenants, models))
        if not owned and not _warned:
            logger.warning("all installed models are declared shared: where nobody is bound, SQL of the app's own runs")
            _warned.append(True)
        _anything_owned.append(owned)
    return not _anything_owned[0]


def _read(table: str) -> Kind:
    models = installed_tables().get(_normal(table), [])
    model = next((one for one in models if one._meta.db_table == table), None)
    if model is None or not _NAME.fullmatch(table):
        raise UnclassifiedTable(
            f"The table {table!r} belongs to no installed model.",
            mend='Use a model of an installed app, or work in a block of system("why").',
        )
    kind = _classified(model, ())
    for other in models:
        if other is not model and _described(_classified(other, ())) != _described(kind):
            raise UnclassifiedTable(
                f"The models {model._meta.label} and {other._meta.label} name the same table, and are classified "
                "differently.",
                mend="Classify both alike.",
            )
        written = {field.column for one in (model, other) for field in one._meta.local_concrete_fields}
        if len({column.lower() for column in written}) < len(written):
            raise UnclassifiedTable(
                f"The models {model._meta.label} and {other._meta.label} write a column of their table in two ways.",
                mend="Write it in capitals in both, or in neither.",
            )
    return kind


def _described(kind: Kind) -> tuple[object, ...]:
    if isinstance(kind, Owned):
        return ("owned", kind.key.column, _narrowed(kind), kind.everyone, *_opened(kind.wide))
    if isinstance(kind, Child):
        return ("child", kind.pairs, _normal(kind.parent.table), _narrowed(kind))
    return ("shared",)


def _narrowed(kind: Owned | Child) -> tuple[tuple[str, str], ...]:
    return tuple((key.dimension, key.column) for key in kind.narrower)


def _opened(wide: WideMark | None) -> tuple[object, ...]:
    return () if wide is None else (wide.dimensions, wide.writable)


def _mark(model: Any) -> Mark | None:
    own = next(
        (
            base.__dict__[MARK]
            for base in model.__mro__
            if MARK in base.__dict__ and (base is model or base._meta.abstract)
        ),
        None,
    )
    named = _by_name(model)
    if own is not None and named is not None and repr(own) != repr(named):
        raise ConfigurationError(
            f"The model {model._meta.label} is {own!r}, and is classified by name as {named!r}.",
            mend="Keep one of the two.",
        )
    return own or named


def _classified(model: Any, above: tuple[Any, ...]) -> Kind:
    opts = model._meta
    mark = _mark(model)
    if model in above:
        raise ConfigurationError(f"The model {opts.label} is owned through itself.", mend="Name another foreign key.")
    _check_columns(model)
    if isinstance(mark, OwnedMark) and _local(model, mark.field) is None and opts.parents:
        mark = None  # a child of multi-table inheritance: the key is in its parent's table
    if isinstance(mark, SharedMark):
        if any(not isinstance(_classified(parent, (*above, model)), Shared) for parent in opts.parents):
            raise ConfigurationError(
                f"The model {opts.label} is {mark!r}, and extends rows that belong to tenants.",
                mend="Leave it unmarked: it belongs to whom its parent belongs to.",
            )
        return Shared(model, mark.reason)
    if isinstance(mark, OwnedMark):
        return _owned(model, mark)
    if isinstance(mark, ThroughMark):
        field = _local(model, mark.field)
        if field is None or field.remote_field is None or isinstance(field.remote_field.model, str):
            raise ConfigurationError(
                f"The model {opts.label} is {mark!r}, and has no foreign key of that name.",
                mend="Name a foreign key of the model's own table.",
            )
        return _child(model, field, above, _narrower(model, mark.dimensions))
    for parent, link in opts.parents.items():
        if link is not None and not isinstance(_classified(parent, (*above, model)), Shared):
            return _child(model, link, above)
    if opts.auto_created:
        return _through_table(model, above)
    raise UnclassifiedTable(
        f"The model {opts.label} is neither owned by tenants nor shared.",
        mend="Inherit from TenantModel, decorate it with @owned, @owned_through or @shared, or name it in the setting "
        'TENANTGUARD["MODELS"].',
    )


def _local(model: Any, name: str) -> Any:
    for field in (*model._meta.local_fields, *model._meta.private_fields):
        if name in (field.name, getattr(field, "attname", None)):
            return field
    return None


def _owned(model: Any, mark: OwnedMark) -> Owned:
    label = model._meta.label
    field = _local(model, mark.field)
    if field is None or not field.concrete:
        raise ConfigurationError(
            f"The model {label} is {mark!r}, and has no field {mark.field!r}.", mend="Name the field of the tenant."
        )
    everyone: object = NO_GLOBAL if mark.global_rows is False else mark.global_rows
    if mark.global_rows is True:
        everyone = None
    if field.null and everyone is not None:
        raise ConfigurationError(
            f"The tenant key {label}.{field.name} may be NULL.",
            mend="Set null=False, or owned(..., global_rows=True) if rows without a tenant are for everybody.",
        )
    if everyone is None and not field.null:
        raise ConfigurationError(
            f"The tenant key {label}.{field.name} marks rows for everybody by NULL, and may not be NULL.",
            mend="Set null=True, or give the value that marks them: owned(..., global_rows='*').",
        )
    return Owned(model, Key(field, "tenant"), _narrower(model, mark.dimensions), everyone, _wide(model) or mark.wide)


def _narrower(model: Any, dimensions: Mapping[str, str]) -> tuple[Key, ...]:
    narrower = []
    for dimension, name in dimensions.items():
        narrow = _local(model, name)
        if narrow is None or not narrow.concrete or narrow.null:
            raise ConfigurationError(
                f"The model {model._meta.label} has no field {name!r} that is not NULL for the dimension "
                f"{dimension!r}.",
                mend="Name a field that says which one a row belongs to.",
            )
        narrower.append(Key(narrow, dimension))
    return tuple(narrower)


def _wide(model: Any) -> WideMark | None:
    """Return what a model says itself or by an abstract base, not what a parent with a table of its own says."""
    for base in model.__mro__:
        if WIDE in base.__dict__ and (base is model or base._meta.abstract):
            found = base.__dict__[WIDE]
            return found if isinstance(found, WideMark) else None
    return None


def _child(model: Any, field: Any, above: tuple[Any, ...], narrower: tuple[Key, ...] = ()) -> Child:
    parent = _classified(field.remote_field.model._meta.concrete_model, (*above, model))
    if isinstance(parent, Shared):
        raise ConfigurationError(
            f"The model {model._meta.label} is owned through {field.name!r}, which points to a shared model.",
            mend="Make the parent owned, or declare this model shared as well.",
        )
    if any(own.null for own, _ in field.related_fields):
        raise ConfigurationError(
            f"The foreign key {model._meta.label}.{field.name} that says whose the row is may be NULL.",
            mend="Set null=False.",
        )
    if _wide(model) is not None:
        raise ConfigurationError(
            f"The model {model._meta.label} is opened by wide(), and belongs to whom its parent belongs to.",
            mend="Open the parent.",
        )
    return Child(model, field, parent, narrower)


def _through_table(model: Any, above: tuple[Any, ...]) -> Kind:
    # Django makes the foreign key to the model with the ManyToManyField first.
    for field in model._meta.local_fields:
        if field.remote_field is not None:
            target = field.remote_field.model
            if not isinstance(_classified(target._meta.concrete_model, (*above, model)), Shared):
                return _child(model, field, above)
    return Shared(model, shared("links between shared models").reason)


def _check_columns(model: Any) -> None:
    for field in model._meta.local_concrete_fields:
        if any(sign in field.column for sign in "\"%`\0'"):
            raise ConfigurationError(
                f"The column of {model._meta.label}.{field.name} has a quote or percent sign in its name.",
                mend="Rename the column.",
            )


def links_of(kind: Kind) -> tuple[Link, ...]:
    """Return the foreign keys of a table that point to rows of tenants, of whichever of its models."""
    if kind.links is None:
        models = installed_tables().get(_normal(kind.table), [])
        fields = [field for model in (kind.model, *models) for field in model._meta.local_concrete_fields]
        found: dict[tuple[str, Kind, str], Link] = {}
        for field in fields:
            if field.remote_field is None or isinstance(field.remote_field.model, str):
                continue
            target_field = field.target_field
            try:
                target = kind_of_model(target_field.model)
            except (UnclassifiedTable, ConfigurationError):
                continue  # a table that no statement may name
            if isinstance(target, Shared) or (isinstance(kind, Owned) and field.column == kind.key.column):
                continue
            owns = isinstance(kind, Child) and kind.field.column == field.column
            found.setdefault(
                (field.column, target, target_field.column), Link(field, target, target_field.column, owns)
            )
        kind.links = tuple(found.values())
    return kind.links


def watched_columns(kind: Kind) -> dict[str, tuple[Key | None, tuple[Link, ...]]]:
    """Return what is looked at before a column is written: the key that it holds, and where it points to."""
    if kind.watched is None:
        own = (
            (kind.key, *kind.narrower) if isinstance(kind, Owned) else kind.narrower if isinstance(kind, Child) else ()
        )
        keys = {key.column: key for key in own}
        links: dict[str, tuple[Link, ...]] = {}
        for link in links_of(kind):
            links[link.field.column] = (*links.get(link.field.column, ()), link)
        kind.watched = {column: (keys.get(column), links.get(column, ())) for column in {*keys, *links}}
    return kind.watched
