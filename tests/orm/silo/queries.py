"""Random query trees: every kind of FROM element and join, at every depth, around random expressions.

Rows are limited and numbered only under a total order, and aggregates do not depend on the order of rows, so that the
answer of a query is a matter of what is in the database alone.
"""

from collections.abc import Sequence
from typing import Final

from tests.orm.silo.expressions import KINDS, Column, ExpressionWriter, Query, Source, columns_of

__all__ = ["QueryWriter"]

_MOST_SOURCES: Final = 3
_FAMILY: Final = {"Memo": "Document", "Report": "Document", "Contract": "Document"}


class QueryWriter(ExpressionWriter):
    """Writes SELECTs.

    The attribute `handwritten` leaves out what can't be said with handwritten filters in place of the tables:
    `with_polymorphic`, whose tables are not named, and TABLESAMPLE, which only tables have; and a FULL JOIN in a UNION
    on SQLite, where it loses handwritten filters as well.
    """

    handwritten = False
    _in_compound = 0

    def start(self) -> None:
        """Begin a statement: classes and tables that it has named without an alias are forgotten."""
        self._plain: set[str] = set()

    # --- the elements of a FROM list ---------------------------------------------------------------------

    def source(self, depth: int, beside: Sequence[Source] = ()) -> Source:
        """Write one element. A LATERAL one refers to those beside it."""
        nested = {"subquery": 1.5, "cte": 1, "recursive": 0.5, "compound": 0.7, "entity_of": 0.7} if depth > 0 else {}
        lateral = {"lateral": 1.5} if self.postgres and depth > 0 and beside else {}
        others = {} if self.handwritten else {"polymorphic": 0.4, **({"sample": 0.2} if self.postgres else {})}
        shape = self.pick(entity=2, aliased=4, table=1.5, alias=3, values=0.3, **nested, **lateral, **others)
        written: Source = getattr(self, f"_{shape}_source")(depth, beside)
        return written

    def _entity_source(self, depth: int, beside: Sequence[Source]) -> Source:
        model = self.random.choice(list(self.models))
        family = _FAMILY.get(model, model)
        if family in self._plain:
            return self._aliased_source(depth, beside)
        self._plain.add(family)
        return Source(model, *columns_of(model, "", self.models[model]), model)

    def _aliased_source(self, depth: int, beside: Sequence[Source]) -> Source:
        model = self.random.choice(list(self.models))
        return self.aliased(model)

    def aliased(self, model: str) -> Source:
        """Write an alias of a mapped class."""
        name = self.let(model[0].lower(), f'aliased({model}, name="{{name}}")')
        return Source(name, *columns_of(name, "", self.models[model]), model)

    def _polymorphic_source(self, depth: int, beside: Sequence[Source]) -> Source:
        flat = self.random.choice(("aliased=True", "flat=True"))
        name = self.let("p", f"with_polymorphic(Document, {self.random.choice(('[Report]', '[Contract]'))}, {flat})")
        return Source(name, *columns_of(name, "", self.models["Document"]), "Document")

    def _entity_of_source(self, depth: int, beside: Sequence[Source]) -> Source:
        model = self.random.choice(list(self.models))
        inner = self.aliased(model)
        name = self.let(
            "e", f"aliased({model}, select({inner.name}).where({self.condition([inner], depth - 1)}).subquery())"
        )
        return Source(name, *columns_of(name, "", self.models[model]), model)

    def _table_source(self, depth: int, beside: Sequence[Source]) -> Source:
        table = self._table()
        family = {
            "people": "Person",
            "folders": "Folder",
            "countries": "Country",
            "replies": "Reply",
            "ledger": "Entry",
        }
        known = family.get(table, {"documents", "reports", "contracts"} & {table} and "Document") or table.title()[:-1]
        if known in self._plain:
            return self._alias_source(depth, beside)
        self._plain.add(known)
        return Source(table, *columns_of(table, table))

    def _table(self) -> str:
        return self.random.choice(
            ("people", "folders", "tags", "documents", "documents", "reports", "contracts", "notes", "replies", "ledger",
             "document_tags", "watchers", "countries", "events")
        )  # fmt: skip

    def _alias_source(self, depth: int, beside: Sequence[Source]) -> Source:
        table = self._table()
        name = self.let("t", f'{table}.alias("{{name}}")')
        return Source(name, *columns_of(name, table))

    def _sample_source(self, depth: int, beside: Sequence[Source]) -> Source:
        table = self._table()
        name = self.let("s", f'{table}.tablesample(func.bernoulli(100), name="{{name}}")')
        return Source(name, *columns_of(name, table))

    def _values_source(self, depth: int, beside: Sequence[Source]) -> Source:
        rows = ", ".join(f"({self.literal('int')}, {self.literal('str')})" for _ in range(2))
        made = f'values(column("c0", Integer), column("c1", String), name="{{name}}_").data([{rows}])'
        return self._derived(self.let("v", f'{made}.cte("{{name}}")'), ("int", "str"))

    def _derived(self, name: str, kinds: Sequence[str]) -> Source:
        columns = tuple(Column(f"{name}.c.c{at}", kind) for at, kind in enumerate(kinds))
        return Source(name, columns, columns)

    def _subquery_source(self, depth: int, beside: Sequence[Source]) -> Source:
        query = self.query(depth - 1)
        return self._derived(self.let("q", f'{query.source}.subquery("{{name}}")'), query.kinds)

    def _lateral_source(self, depth: int, beside: Sequence[Source]) -> Source:
        query = self.query(depth - 1, beside)
        return self._derived(self.let("l", f'{query.source}.lateral("{{name}}")'), query.kinds)

    def _cte_source(self, depth: int, beside: Sequence[Source]) -> Source:
        query = self.query(depth - 1)
        name = self.let("c", f'{query.source}.cte("{{name}}")')
        if self.chance(0.3):
            name = self.let("c", f'{name}.alias("{{name}}")')
        return self._derived(name, query.kinds)

    def _compound_source(self, depth: int, beside: Sequence[Source]) -> Source:
        query = self.compound(depth - 1)
        return self._derived(self.let("q", f'{query.source}.{self.pick(subquery=2, cte=1)}("{{name}}")'), query.kinds)

    def _recursive_source(self, depth: int, beside: Sequence[Source]) -> Source:
        first, step = (
            self.aliased("Folder") if self.chance(0.5) else self._folder_alias(),
            self.aliased("Folder"),
        )
        one = f"{first.name}.c" if first.model is None else first.name
        start = f"select({one}.id.label('c0'), {one}.name.label('c1'), literal(0).label('c2'))"
        cte = self.let("r", f'{start}.where({self.condition([first], 0)}).cte("{{name}}", recursive=True)')
        on = self.random.choice((f"{step.name}.parent_id == {cte}.c.c0", "true()", self.condition([step], 0)))
        following = (
            f"select({step.name}.id, {step.name}.name, {cte}.c.c2 + 1).select_from({step.name}).join({cte}, {on})"
        )
        return self._derived(self.let("r", f"{cte}.union({following}.where({cte}.c.c2 < 2))"), ("int", "str", "int"))

    def _folder_alias(self) -> Source:
        name = self.let("t", 'folders.alias("{name}")')
        return Source(name, *columns_of(name, "folders"))

    # --- joins -------------------------------------------------------------------------------------------

    def froms(self, depth: int, outer: Sequence[Source] = ()) -> tuple[list[Source], str]:
        """Write a FROM list: its sources, and the calls that put it into a SELECT."""
        sources = [self.source(depth, outer if self.chance(0.2) else ())]
        count = self.random.choices(range(1, _MOST_SOURCES + 1), (5, 4, 2))[0]
        if count == 1:
            return sources, f".select_from({sources[0].name})"
        shape = self.pick(tree=4, chain=4, comma=1, relationship=2)
        if shape == "relationship" and sources[0].model is not None and self._relationships(sources[0]):
            key, target, _ = self.random.choice(self._relationships(sources[0]))
            joined = self.aliased(target)
            call = self.pick(join=1, outerjoin=1)
            on = f"{sources[0].name}.{key}.of_type({joined.name})"
            if self.chance(0.3):
                on = f"{on}.and_({self.condition([joined], 0)})"
            return [sources[0], joined], f".select_from({sources[0].name}).{call}({on})"
        while len(sources) < count:
            sources.append(self.source(depth - 1, sources if shape == "chain" else ()))
        if shape == "comma":
            return sources, f".select_from({', '.join(one.name for one in sources)})"
        if shape == "tree" and not any(one.name.startswith("l") for one in sources):
            return sources, f".select_from({self._tree(sources, depth)})"
        calls = f".select_from({sources[0].name})"
        for at, one in enumerate(sources[1:], start=1):
            full = self._full() and not one.name.startswith("l")
            on = self._on(sources[:at], [one], depth, full=full)
            kind = "full=True" if full else f"isouter={self.chance(0.45)}"
            calls += f".join({one.name}, {on}, {kind})"
        return sources, calls

    def _tree(self, sources: Sequence[Source], depth: int) -> str:
        if len(sources) == 1:
            return sources[0].name
        at = self.random.randint(1, len(sources) - 1)
        left, right = sources[:at], sources[at:]
        full = self._full()
        on = self._on(left, right, depth, full=full)
        kind = "full=True" if full else f"isouter={self.chance(0.45)}"
        return self.let("j", f"join({self._tree(left, depth)}, {self._tree(right, depth)}, {on}, {kind})")

    def _full(self) -> bool:
        return self.chance(0.15) and not (self.handwritten and self._in_compound and not self.postgres)

    def _on(self, left: Sequence[Source], right: Sequence[Source], depth: int, *, full: bool) -> str:
        kind = self.pick(int=3, str=2)
        one, other = self.column(left, kind), self.column(right, kind)
        if one is None or other is None or (not full and self.chance(0.4)):
            return "true()" if full or self.chance(0.5) else self.condition([*right, *left], depth - 1)
        equal = f"({one.source} == {other.source})"
        if full or self.chance(0.6):
            return equal  # PostgreSQL joins FULL on equality alone
        return f"{self.pick(and_=1, or_=1)}({equal}, {self.condition([*right, *left], depth - 1)})"

    # --- whole queries -----------------------------------------------------------------------------------

    def query(self, depth: int, outer: Sequence[Source] = (), kinds: Sequence[str] | None = None) -> Query:
        """Write a SELECT.

        Args:
            depth: how deep it may nest.
            outer: what it may refer to of the statement around it.
            kinds: of its columns; random ones if left out.
        """
        kinds = tuple(kinds or self.random.choices(KINDS, (5, 4, 1), k=self.random.randint(1, 3)))
        sources, froms = self.froms(depth, outer)
        scope = [*sources, *outer]
        shape = self.pick(plain=6, grouped=2, window=1, aggregate=1)
        columns: list[str] = []
        tail = ""
        if shape == "grouped" and (keys := [key for _ in range(2) if (key := self.column(sources))]):
            for kind in kinds:
                key = next((one for one in keys if one.kind == kind), None)
                columns.append(key.source if key and self.chance(0.6) else self.aggregate(sources, kind, depth - 1))
            tail = f".group_by({', '.join(key.source for key in keys)})"
            if self.chance(0.3):
                tail += f".having({self.aggregate(sources, 'int', 0)} {self.pick(**{'>': 1, '<=': 1})} {self.literal('int')})"
        elif shape == "aggregate":
            columns = [self.aggregate(sources, kind, depth - 1) for kind in kinds]
        else:
            columns = [self.expression(scope, kind, depth) for kind in kinds]
            if shape == "window":
                columns = [
                    self._window(sources, kind) if self.chance(0.7) else one
                    for kind, one in zip(kinds, columns, strict=True)
                ]
        labelled = ", ".join(f'({one}).label("c{at}")' for at, one in enumerate(columns))
        text = f"select({labelled}){froms}"
        if self.chance(0.6):
            text += f".where({self.condition(scope, depth)})"
        text += tail
        if self.chance(0.12):
            text += ".distinct()"
        return self.ordered(text, kinds, likely=0.25)

    def ordered(self, text: str, kinds: Sequence[str], *, likely: float) -> Query:
        """Perhaps order a SELECT by all of its columns, and then perhaps limit it."""
        if not self.chance(likely):
            return Query(text, tuple(kinds), total=False)
        order = ", ".join(f'{self.pick(asc=2, desc=1)}("c{at}")' for at in range(len(kinds)))
        text += f".order_by({order})"
        if self.chance(0.6):
            text += f".limit({self.random.randint(0, 4)})"
            if self.chance(0.3):
                text += f".offset({self.random.randint(0, 3)})"
        return Query(text, tuple(kinds), total=True)

    def _window(self, sources: Sequence[Source], kind: str) -> str:
        keys = ", ".join(key.source for one in sources for key in one.key)
        partition = self.column(sources)
        by = f"partition_by={partition.source}, " if partition and self.chance(0.5) else ""
        column = self.column(sources, kind)
        if column is None or (kind == "int" and self.chance(0.5)):
            if kind != "int":
                return f"literal({self.literal(kind)})"
            return f"func.{self.pick(row_number=2, rank=1, count=1)}().over({by}order_by=[{keys}])"
        shape = self.pick(lag=1, max=1, first_value=1, sum=2 if kind == "int" else 0)
        return f"func.{shape}({column.source}).over({by}order_by=[{keys}])"

    def scalar(self, scope: Sequence[Source], kind: str) -> str:
        """Write a scalar subquery: an aggregate, or the first of a total order."""
        sources, froms = self.froms(0, scope)
        within = [*sources, *scope]
        where = f".where({self.condition(within, 0)})" if self.chance(0.7) else ""
        if self.chance(0.7):
            return f"select({self.aggregate(sources, kind, 0)}){froms}{where}.scalar_subquery()"
        column = self.expression(sources, kind, 0)
        return f'select(({column}).label("c0")){froms}{where}.order_by("c0").limit(1).scalar_subquery()'

    def compound(self, depth: int) -> Query:
        """Write a UNION, INTERSECT or EXCEPT of two or three SELECTs."""
        kinds = tuple(self.random.choices(KINDS, (5, 4, 1), k=self.random.randint(1, 3)))
        parts = []
        self._in_compound += 1
        for _ in range(self.random.choice((2, 2, 3))):
            sources, froms = self.froms(depth - 1)
            columns = ", ".join(
                f'({self.expression(sources, kind, depth - 1)}).label("c{at}")' for at, kind in enumerate(kinds)
            )
            where = f".where({self.condition(sources, depth - 1)})" if self.chance(0.6) else ""
            parts.append(f"select({columns}){froms}{where}")
        self._in_compound -= 1
        operation = self.pick(union=2, union_all=2, intersect=1, except_=1)
        return Query(f"{operation}({', '.join(parts)})", kinds, total=False)

    def statement(self, depth: int = 2) -> Query:
        """Write a whole statement that returns columns."""
        self.start()
        if self.chance(0.12):
            made = self.compound(depth)
            return self.ordered(made.source, made.kinds, likely=0.5)
        made = self.query(depth)
        return made if made.total or ".distinct()" in made.source else self.ordered(made.source, made.kinds, likely=0.3)
