"""Wall one, reading: the tenant's predicate is added while a SELECT, a join or a table compiles.

The hook is the dialect's compiler, so Core and ORM, sync and async, and every loader strategy pass it. The predicate
compares the tenant key with a bound parameter whose value is read when the statement runs: a cached statement never
carries a tenant. The predicates are joined by AND to the author's criteria, which stand in parentheses of their own.

A table that is rendered without having been planned for is refused (`tenantguard.orm.froms`): what this module does
not understand does not pass.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, FromClause, and_
from sqlalchemy.sql.elements import Grouping

from tenantguard.errors import UnclassifiedTable
from tenantguard.orm.classify import (
    Child,
    Key,
    Kind,
    Owned,
    Shared,
    belongs_to_tenants,
    classify,
    classify_alone,
    real_table,
)
from tenantguard.orm.froms import FromPlan
from tenantguard.orm.key_types import ExactKeyMixin
from tenantguard.orm.lifts import READ, WRITE, Lifts
from tenantguard.orm.predicates import Predicates
from tenantguard.orm.tables import namesakes
from tenantguard.orm.vouching import VouchingMixin, refuse

__all__ = ["ScopingMixin"]


class ScopingMixin(ExactKeyMixin, VouchingMixin):
    """Adds predicates to SELECTs. Mixed in before a dialect's compiler."""

    plans: list[FromPlan]
    predicates: Predicates
    lifts: Lifts
    baked: bool

    def classify(self, table: object) -> Kind:
        """Return what a table is to this engine.

        Raises:
            UnclassifiedTable: it is nothing, or of none of the MetaData that the engine was declared to hold.
        """
        own = self.dialect.tenantguard_metadata
        if own is None:
            kind = classify(table)
        else:
            kind = classify_alone(table)
            real = real_table(table)
            if not any(metadata.tables.get(real.key) is real for metadata in own):
                raise UnclassifiedTable(
                    f"The table {real.name!r} is of another MetaData than the engine was declared to hold.",
                    mend="Name its MetaData as well: protect(engine, metadata=[...]).",
                )
        if (
            isinstance(kind, Shared)
            and self.schema_translate_map
            and any(belongs_to_tenants(other) for other in namesakes(real_table(table), any_schema=True))
        ):
            refuse(f"a translated schema for the shared table {getattr(table, 'name', '')!r}, whose name others own")
        return kind

    def scope_where(self, criteria: tuple[Any, ...], predicates: list[ColumnElement[bool]]) -> tuple[Any, ...]:
        """Return the author's criteria, in parentheses, and the predicates beside them."""
        if not predicates:
            return criteria
        if not criteria:
            return tuple(predicates)
        return (Grouping(and_(*criteria)), *predicates)

    def fixed_keys(self, kind: Kind) -> tuple[Key, ...]:
        """Return the keys of a table that are fixed for the bound identity: the tenant's and what it is narrowed in."""
        if isinstance(kind, Shared):
            return ()
        narrower = tuple(key for key in kind.narrower if key.dimension in self.predicates.narrowed)
        return (kind.key, *narrower) if isinstance(kind, Owned) else narrower

    def row_predicate(self, kind: Owned | Child, element: FromClause) -> ColumnElement[bool] | None:
        """Return the predicate of a table whose rows are read; ``None`` where the barrier is lifted for it."""
        if self.lifts.holds(READ, element):
            return None
        return self.predicates.predicate(kind, element, write=False)

    def changed_predicate(self, kind: Owned | Child, element: FromClause) -> ColumnElement[bool] | None:
        """Return the predicate of a table whose rows are changed; ``None`` where the barrier is lifted for it."""
        if self.lifts.holds(WRITE, element):
            return None
        return self.predicates.predicate(kind, element, write=True)

    @contextmanager
    def planned(
        self, froms: Iterable[FromClause], *, targets: Iterable[FromClause] = (), insert: bool = False
    ) -> Iterator[FromPlan]:
        """Plan a FROM list, for the time in which its statement is rendered.

        Args:
            froms: its elements.
            targets: those of them whose rows are changed.
            insert: True for the target of an INSERT, which has no rows yet.
        """
        changed = {id(target) for target in targets}

        def predicate(kind: Owned | Child, element: FromClause) -> ColumnElement[bool] | None:
            if insert:
                return None
            if id(element) in changed:
                return self.changed_predicate(kind, element)
            return self.row_predicate(kind, element)

        plan = FromPlan(froms, predicate, self.classify)
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
            scoped.onclause = and_(Grouping(join.onclause), *predicates)
            join = scoped
        return super().visit_join(join, asfrom=asfrom, from_linter=from_linter, **kwargs)

    def visit_table(self, table: Any, asfrom: bool = False, enclosing_alias: Any = None, **kwargs: Any) -> str:
        text = super().visit_table(table, asfrom=asfrom, enclosing_alias=enclosing_alias, **kwargs)
        if self.unscoped or not text:
            return text
        aliased = enclosing_alias is not None and enclosing_alias.element is table
        if not self.plans or not self.plans[-1].knows(enclosing_alias if aliased else table):
            refuse(f"the table {table.name!r} in an unexpected place")
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
            bind is bindparam for bind, _, _ in self.predicates.binds
        ):
            # The value would stand in the SQL text, and the text outlives the tenant.
            self.baked = True
        return super().visit_bindparam(bindparam, *args, **kwargs)
