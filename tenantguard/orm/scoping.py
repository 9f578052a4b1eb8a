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

from sqlalchemy import ColumnElement, FromClause, and_, case, false
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.sql.selectable import TableSample

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
from tenantguard.orm.defects import loses_criteria_of_unions
from tenantguard.orm.failing import can_fail
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
    named_tables: set[str]
    baked: bool
    fenced: bool
    """Whether child tables are rendered so that the database applies their predicate before all else."""
    met_child: bool
    met_failing: bool

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
        """Return the predicates, and after them the author's criteria in parentheses.

        Databases that evaluate criteria in their order then do not evaluate the author's on rows of others, where
        they could fail: an error would tell of such a row.
        """
        if not predicates:
            return criteria
        if not criteria:
            return tuple(predicates)
        return (*predicates, Grouping(criteria[0] if len(criteria) == 1 else and_(*criteria)))

    def note_failing(self, parts: Iterable[Any]) -> None:
        """Note whether a statement has criteria that can fail (`tenantguard.orm.failing`)."""
        if self.dialect.name == "postgresql" and not self.met_failing:
            self.met_failing = can_fail(parts)

    def guard_where(self, criteria: tuple[Any, ...], predicates: list[ColumnElement[bool]]) -> tuple[Any, ...]:
        """Return criteria such that the author's are evaluated where the predicates hold, and nowhere else."""
        if not predicates or not criteria:
            return self.scope_where(criteria, predicates)
        return (case((and_(*predicates), and_(*criteria)), else_=false()),)

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
        return self._predicate(kind, element, write=False)

    def changed_predicate(self, kind: Owned | Child, element: FromClause) -> ColumnElement[bool] | None:
        """Return the predicate of a table whose rows are changed; ``None`` where the barrier is lifted for it."""
        if self.lifts.holds(WRITE, element):
            return None
        return self._predicate(kind, element, write=True)

    def _predicate(self, kind: Owned | Child, element: FromClause, *, write: bool) -> ColumnElement[bool]:
        self.met_child = self.met_child or isinstance(kind, Child) or kind.through is not None
        return self.predicates.predicate(kind, element, write=write)

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

        plan = FromPlan(froms, predicate, self.classify, fence=self.fenced, targets=targets)
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
        # The outermost columns are computed when all rows are chosen; a nested one may become a criterion.
        self.note_failing([*select._where_criteria, *froms, *(() if toplevel else select._raw_columns)])
        with self.planned(froms) as plan:
            if plan.full and loses_criteria_of_unions(self.dialect, self.stack):
                refuse(
                    "a FULL JOIN in a UNION, on an SQLite that loses the criteria beside it",
                    mend="Select it by a statement of its own, or use SQLite 3.45 or newer.",
                )
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
        if self.unscoped or not text or (kwargs.get("ashint") and not asfrom):
            return text  # FOR UPDATE OF names what FROM has
        aliased = enclosing_alias is not None and enclosing_alias.element is table
        if not self.plans or not self.plans[-1].knows(enclosing_alias if aliased else table):
            refuse(f"the table {table.name!r} in an unexpected place")
        if table.schema is None:
            self.named_tables.add(table.name.lower())
        if asfrom and not aliased and (predicate := self.plans[-1].derived(table)) is not None:
            if table.schema is not None:
                refuse(
                    "a table with a schema in a FULL JOIN, or a child table of one beside criteria that can fail",
                    mend="Give the table an alias: aliased(Model).",
                )
            return self._derived_table(text, predicate, self.preparer.quote(table.name))
        return text

    def visit_alias(self, alias: Any, asfrom: bool = False, **kwargs: Any) -> str:
        text = super().visit_alias(alias, asfrom=asfrom, **kwargs)
        return self._derived_alias(alias, text) if asfrom and not isinstance(alias, TableSample) else text

    def visit_tablesample(self, tablesample: Any, asfrom: bool = False, **kwargs: Any) -> str:
        text = super().visit_tablesample(tablesample, asfrom=asfrom, **kwargs)
        return self._derived_alias(tablesample, text) if asfrom else text

    def _derived_alias(self, alias: Any, text: str) -> str:
        predicate = self.plans[-1].derived(alias) if self.plans and not self.unscoped else None
        return (
            text if predicate is None else self._derived_table(text, predicate, super().visit_alias(alias, ashint=True))
        )

    def _derived_table(self, text: str, predicate: ColumnElement[bool], name: str) -> str:
        # Every part was rendered and quoted by the dialect's compiler. PostgreSQL moves no criteria past an OFFSET.
        fence = " OFFSET 0" if self.fenced else ""
        return f"(SELECT * FROM {text} WHERE {self.process(predicate)}{fence}) AS {name}"  # noqa: S608

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> str:
        if (kwargs.get("literal_binds") or kwargs.get("literal_execute")) and any(
            bind is bindparam for bind, _, _ in self.predicates.binds
        ):
            # The value would stand in the SQL text, and the text outlives the tenant.
            self.baked = True
        return super().visit_bindparam(bindparam, *args, **kwargs)
