"""Wall one, reading: the tenant's predicate is added while a SELECT, a join or a table compiles.

The hook is the dialect's compiler, so Core and ORM, sync and async, and every loader strategy pass it. The predicate
compares the tenant key with a bound parameter whose value is read when the statement runs: a cached statement never
carries a tenant. The predicates are joined by AND to the author's criteria, which stand in parentheses of their own.

A table that is rendered without having been planned for is refused (`tenantguard.orm.froms`): what this module does
not understand does not pass.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, FromClause, and_, select, tuple_
from sqlalchemy.sql.elements import Grouping

from tenantguard.context import raw_binding
from tenantguard.orm.classify import Child, Owned
from tenantguard.orm.froms import FromPlan
from tenantguard.orm.vouching import VouchingMixin, refuse

__all__ = ["ScopingMixin", "tenant_value"]


def tenant_value(convert: Callable[[str], object]) -> object:
    """Return the bound tenant's id as its key column takes it; ``None`` where there is none.

    It never raises, since it runs while parameters are collected, where an exception would be wrapped together
    with the statement's values. The execution context refuses ``None`` before anything is sent.
    """
    binding = raw_binding()
    if binding is None or binding.system is not None or binding.identity is None or binding.identity.tenant is None:
        return None
    if convert is str:
        return binding.identity.tenant.id
    try:
        return convert(binding.identity.tenant.id)
    except ValueError:
        return None


class ScopingMixin(VouchingMixin):
    """Adds predicates to SELECTs. Mixed in before a dialect's compiler."""

    plans: list[FromPlan]
    tenant_binds: dict[object, tuple[BindParameter[Any], Callable[[str], object]]]
    named_tables: set[str]
    baked: bool

    def scope_where(self, criteria: tuple[Any, ...], predicates: list[ColumnElement[bool]]) -> tuple[Any, ...]:
        """Return the predicates, and the author's criteria, in parentheses, beside them."""
        if not predicates:
            return criteria
        if not criteria:
            return tuple(predicates)
        # First, so that a database that keeps the order asks nothing else of a row of another tenant.
        return (*predicates, Grouping(and_(*criteria)))

    def tenant_bind(self, owned: Owned) -> BindParameter[Any]:
        """Return the parameter that holds the tenant when the statement runs: one per statement and key type."""
        convert, type_ = owned.convert, owned.column.type
        key = (convert, type(type_), repr(type_))
        known = self.tenant_binds.get(key)
        if known is None:
            bind: BindParameter[Any] = BindParameter(
                "tenantguard_tenant", unique=True, type_=type_, callable_=partial(tenant_value, convert)
            )
            known = self.tenant_binds[key] = (bind, convert)
        return known[0]

    def predicate(self, owned: Owned | Child, element: FromClause) -> ColumnElement[bool]:
        """Return the predicate of a table that belongs to tenants, in the words of the alias that it goes by."""
        if isinstance(owned, Child):
            # The inner SELECT is scoped as it compiles, as any other is. It is not correlated, so that it means the
            # same in every clause.
            parent = owned.parent.alias()
            keys = select(*(parent.c[column.key] for column in owned.targets))
            own = [element.c[column.key] for column in owned.columns]
            return own[0].in_(keys) if len(own) == 1 else tuple_(*own).in_(keys)
        column: ColumnElement[Any] = element.c[owned.column.key]
        return column == self.tenant_bind(owned)

    @contextmanager
    def planned(self, froms: Iterable[FromClause], *, insert: bool = False) -> Iterator[FromPlan]:
        """Plan a FROM list, for the time in which its statement is rendered."""
        plan = FromPlan(froms, None if insert else self.predicate)
        self.plans.append(plan)
        try:
            yield plan
        finally:
            self.plans.pop()

    def _compose_select_body(
        self,
        text: str,
        select: Any,
        compile_state: Any,
        inner_columns: Any,
        froms: Any,
        byfrom: Any,
        toplevel: bool,
        kwargs: Any,
    ) -> str:
        if self.unscoped:
            return super()._compose_select_body(
                text, select, compile_state, inner_columns, froms, byfrom, toplevel, kwargs
            )
        self.vouch_for_parts(select.get_children(), froms)
        with self.planned(froms) as plan:
            if plan.where:
                scoped = select._clone()
                scoped._where_criteria = self.scope_where(select._where_criteria, plan.where)
                select = scoped
            return super()._compose_select_body(
                text, select, compile_state, inner_columns, froms, byfrom, toplevel, kwargs
            )

    def visit_join(self, join: Any, asfrom: bool = False, from_linter: Any = None, **kwargs: Any) -> str:
        predicates = self.plans[-1].on(join) if self.plans else []
        if predicates:
            scoped = join._clone()
            scoped.onclause = and_(*predicates, Grouping(join.onclause))
            join = scoped
        return super().visit_join(join, asfrom=asfrom, from_linter=from_linter, **kwargs)

    def visit_table(self, table: Any, asfrom: bool = False, enclosing_alias: Any = None, **kwargs: Any) -> str:
        text = super().visit_table(table, asfrom=asfrom, enclosing_alias=enclosing_alias, **kwargs)
        if self.unscoped or not text or kwargs.get("ashint"):
            return text
        aliased = enclosing_alias is not None and enclosing_alias.element is table
        if not self.plans or not self.plans[-1].knows(enclosing_alias if aliased else table):
            refuse(f"the table {table.name!r} in an unexpected place")
        if table.schema is None:
            self.named_tables.add(table.name.lower())
        if asfrom and not aliased and (predicate := self.plans[-1].derived(table)) is not None:
            if table.schema is not None:
                refuse("a FULL JOIN of a table with a schema", mend="Give the table an alias: aliased(Model).")
            return self._derived_table(text, predicate, self.preparer.quote(table.name))
        return text

    def visit_alias(self, alias: Any, asfrom: bool = False, **kwargs: Any) -> str:
        text = super().visit_alias(alias, asfrom=asfrom, **kwargs)
        if asfrom and not self.unscoped and self.plans:
            predicate = self.plans[-1].derived(alias)
            if predicate is not None:
                return self._derived_table(text, predicate, super().visit_alias(alias, ashint=True))
        return text

    def _derived_table(self, text: str, predicate: ColumnElement[bool], name: str) -> str:
        # Every part was rendered and quoted by the dialect's compiler.
        return f"(SELECT * FROM {text} WHERE {self.process(predicate)}) AS {name}"  # noqa: S608

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> str:
        if (kwargs.get("literal_binds") or kwargs.get("literal_execute")) and any(
            bind is bindparam for bind, _ in self.tenant_binds.values()
        ):
            # The value would stand in the SQL text, and the text outlives the tenant.
            self.baked = True
        return super().visit_bindparam(bindparam, *args, **kwargs)
