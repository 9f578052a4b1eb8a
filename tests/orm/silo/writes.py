"""Random INSERT, UPDATE, DELETE and upsert statements, of Core and of the ORM, on rows that mostly can be written.

Most values are such that the statement succeeds; some point to rows that b alone has, or name b as the tenant.
"""

from collections.abc import Sequence
from typing import Final

from tests.orm.silo.expressions import Column, Source, columns_of
from tests.orm.silo.queries import QueryWriter
from tests.orm.silo.world import CANARY, TABLES

__all__ = ["MODEL_OF", "StatementWriter"]

MODEL_OF: Final = {
    "people": "Person",
    "folders": "Folder",
    "tags": "Tag",
    "documents": "Document",
    "notes": "Note",
    "replies": "Reply",
    "ledger": "Entry",
    "countries": "Country",
    "events": "Event",
}
_DELETABLE: Final = (
    "notes",
    "replies",
    "document_tags",
    "watchers",
    "ledger",
    "documents",
    "tags",
    "reports",
    "contracts",
    "events",
)
_NOT_SET: Final = {"uid", "kind", "tenant_id", "org", "id", "version", "number", "position", "code", "document_uid"}
_COLUMNS: Final[dict[str, dict[str, str]]] = {
    "people": {"id": "new", "uid": "uid", "name": "str", "email": "fresh", "born": "date?", "country_code": "country?"},
    "folders": {"id": "new", "name": "fresh", "rank": "int?", "parent_id": "folder?"},
    "tags": {"id": "new", "label": "fresh"},
    "documents": {
        "id": "new", "uid": "uid", "kind": "'document'", "title": "str", "size": "int", "made": "date?", "meta": "json?",
        "body": "str?", "folder_id": "folder?", "owner_id": "person?",
    },
    "notes": {"document_uid": "document uid", "position": "new", "text": "str", "stars": "int?"},
    "replies": {"document_uid": "'A-uid-1'", "position": "note", "number": "new", "text": "str"},
    "document_tags": {"document_id": "document", "tag_id": "tag", "weight": "int"},
    "watchers": {"document_uid": "document uid", "person_uid": "person uid", "since": "int?"},
    "ledger": {"number": "new", "account": "str", "amount": "int?"},
    "countries": {"code": "code", "name": "str", "area": "int"},
    "events": {"uid": "uid", "meta": "json?", "level": "int?"},
}  # fmt: skip
Row = dict[str, str]


class StatementWriter(QueryWriter):
    """Writes statements that change rows."""

    def value(self, kind: str) -> str:
        """Return a value for a column, as Python source."""
        optional = kind.endswith("?")
        if optional and self.chance(0.25):
            return "None"
        pointed: dict[str, Sequence[str]] = {
            "folder": ("1", "2", "3", "4"),
            "person": ("1", "2", "3"),
            "document": ("1", "2", "3", "4", "5", "6", "7", "8"),
            "tag": ("1", "2", "3"),
            "note": ("2",),
            "document uid": tuple(f"'A-uid-{one}'" for one in range(1, 9)),
            "person uid": ("'A-person-1'", "'A-person-2'", "'A-person-3'"),
            "country": ("'NZ'", "'FR'", "'IN'"),
        }
        kind = kind.rstrip("?")
        if kind in pointed:
            if self.chance(0.07) and kind != "country":
                aimed = {"document uid": f"'{CANARY}-uid-1'", "person uid": f"'{CANARY}-person-1'", "note": "1"}
                return aimed.get(kind, "51")
            return self.random.choice(pointed[kind])
        number = self.random.randint(100, 99_999)
        if kind == "new":
            return self.pick(**{str(number): 20, "51": 1, "1": 0.5})
        if kind in {"uid", "fresh", "code"}:
            return f"'A-{kind}-{number}'" if kind != "code" else f"'{number}'"
        if kind == "json":
            return f"""'{{"n": {number % 10}}}'"""
        return self.literal(kind, aimed=0.2) if kind in {"int", "str", "date"} else kind

    def row(self, table: str) -> Row:
        """Return a new row of a table: its columns and their values."""
        row = {
            key: self.value(kind)
            for key, kind in _COLUMNS[table].items()
            if not (kind.endswith("?") and self.chance(0.3))
        }
        tenant = {"ledger": "org"}.get(table, "tenant_id")
        if tenant in TABLES[table].columns and self.chance(0.15):
            row = {tenant: self.pick(**{"'a'": 9, "'b'": 1}), **row}
        return row

    def rows(self, table: str, count: int) -> list[Row]:
        """Return new rows that have the same columns."""
        first = self.row(table)
        made = [first]
        while len(made) < count:
            made.append(
                {key: self.value(_COLUMNS[table][key]) if key in _COLUMNS[table] else first[key] for key in first}
            )
        return made

    @staticmethod
    def as_dict(row: Row) -> str:
        """Return a row as the source of a dict."""
        return "{" + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}"

    def table_and_target(self, tables: Sequence[str]) -> tuple[str, str, Source]:
        """Return a table, what a statement names it by (the table or its class), and its columns."""
        table = self.random.choice(tables)
        self._plain.add(MODEL_OF.get(table, table))
        if table in MODEL_OF and self.chance(0.5):
            model = MODEL_OF[table]
            return table, model, Source(model, *columns_of(model, "", self.models[model]), model)
        if table in {"documents", "reports", "contracts"}:
            self._plain.add("Document")
        return table, table, Source(table, *columns_of(table, table))

    def insert_statement(self) -> str:
        """Write an INSERT, and return the lines that run it."""
        self.start()
        table, target, source = self.table_and_target(list(_COLUMNS))
        returning = self._returning(source, target)
        shape = self.pick(values=3, many=3, multi=2, select=2, scalar=1, cte=0.5 if self.postgres else 0)
        if shape == "many":
            rows = ", ".join(map(self.as_dict, self.rows(table, self.random.randint(1, 4))))
            return self._execute(f"insert({target}){returning}", f", [{rows}]")
        if shape == "multi":
            rows = ", ".join(map(self.as_dict, self.rows(table, self.random.randint(1, 3))))
            return self._execute(f"insert({target}).values([{rows}]){returning}")
        if shape == "select" and table in {"folders", "tags", "ledger", "documents", "notes"}:
            return self._execute(f"{self._from_select(table, target)}{returning}")
        row = self.row(table)
        if shape == "scalar":
            for key, kind in _COLUMNS[table].items():
                if kind in {"int", "int?"}:
                    row[key] = f"func.coalesce({self.scalar([], 'int')}, 0)"
        inserted = f"insert({target}).values({self.as_dict(row)})"
        if shape == "cte":
            key = source.key[-1].source
            made = self.let("n", f'{inserted}.returning({key}.label("c0")).cte("{{name}}")')
            return self._execute(f"select({made}.c.c0)")
        return self._execute(f"{inserted}{returning}")

    def _from_select(self, table: str, target: str) -> str:
        alias = self._alias_of(table)
        one = alias.name
        shift = self.random.randint(1000, 90_000)
        if table == "documents":
            uid = f"(literal('A-copy-{shift}-') + {one}.c.uid)"
            given = {"id": f"{one}.c.id + {shift}", "uid": uid, "kind": "literal('document')", "title": f"{one}.c.title",
                     "size": self.expression([alias], "int", 1), "folder_id": f"{one}.c.folder_id"}  # fmt: skip
        elif table == "notes":
            given = {
                "document_uid": f"{one}.c.document_uid",
                "position": f"{one}.c.position + {shift}",
                "text": f"{one}.c.text",
            }
        elif table == "ledger":
            given = {
                "number": f"{one}.c.number + {shift}",
                "account": f"{one}.c.account",
                "amount": self.expression([alias], "int", 1),
            }
        else:
            label = "name" if table == "folders" else "label"
            given = {"id": f"{one}.c.id + {shift}", label: f"({one}.c.{label} + '-{shift}')"}
        names = ", ".join(f'"{name}"' for name in given)
        values = ", ".join(f"({value}).label('c{at}')" for at, value in enumerate(given.values()))
        return f"insert({target}).from_select([{names}], select({values}).where({self.condition([alias], 1)}))"  # fmt: skip

    def _alias_of(self, table: str) -> Source:
        name = self.let("t", f'{table}.alias("{{name}}")')
        return Source(name, *columns_of(name, table))

    def upsert_statement(self) -> str:
        """Write an INSERT ... ON CONFLICT, and return the lines that run it."""
        self.start()
        table = self.random.choice(
            ("tags", "folders", "people", "ledger", "notes", "document_tags", "documents", "events")
        )
        rows = self.rows(table, self.random.randint(1, 2))
        keys = {
            "notes": [{"document_uid": "'A-uid-1'", "position": "1"}, {"document_uid": "'A-uid-2'", "position": "1"}],
            "ledger": [{"number": "1"}, {"number": "51"}],
            "document_tags": [{"document_id": "1", "tag_id": "1"}, {"document_id": "2", "tag_id": "2"}],
            "events": [{"uid": "'A-event-1'"}, {"uid": "'A-event-2'"}],
        }.get(table, [{"id": "1"}, {"id": "51"}])
        for row, key in zip(rows, keys, strict=False):
            if self.chance(0.7):
                row |= key
            if table == "documents":
                row["uid"] = f"'A-uid-{row['id']}'"
        given = rows[0] if len(rows) == 1 else rows[0:]
        values = self.as_dict(given) if isinstance(given, dict) else f"[{', '.join(map(self.as_dict, given))}]"
        made = self.let("u", f"upsert({table}).values({values})")
        index = ", ".join(f'"{key.key}"' for key in TABLES[table].primary_key)
        if self.chance(0.3):
            where = f"index_elements=[{index}]" if self.chance(0.7) else ""
            return self._execute(f"{made}.on_conflict_do_nothing({where})")
        source = Source(table, *columns_of(table, table))
        changed = self._changes(table, source, excluded=made)
        where = f", where={self.condition([source], 0)}" if self.chance(0.3) else ""
        returning = self._returning(source, table)
        return self._execute(
            f"{made}.on_conflict_do_update(index_elements=[{index}], set_={self.as_dict(changed)}{where}){returning}"
        )

    def _changes(self, table: str, source: Source, excluded: str = "") -> Row:
        settable = [
            column.key
            for column in TABLES[table].columns
            if column.key not in _NOT_SET and not column.primary_key and not column.foreign_keys
        ]
        settable = [
            key
            for key in settable
            if not key.endswith("_id") and (key not in {"email", "name", "label"} or table == "people")
        ]
        settable = [key for key in settable if key != "email"] or [
            key for key in ("name", "label") if key in TABLES[table].columns
        ]
        changed: Row = {}
        kinds = {column.source.rsplit(".", 1)[1]: column.kind for column in source.columns}
        for key in self.random.sample(settable, min(len(settable), self.random.randint(1, 2))):
            kind = kinds.get(key, "str")
            if excluded and self.chance(0.6):
                changed[key] = f"{excluded}.excluded.{key}"
            elif key in {"name", "label"} and table in {"folders", "tags"}:
                changed[key] = f"'A-{key}-{self.random.randint(100, 9999)}'"
            elif key in {"size", "area", "weight", "title", "text", "name", "account", "pages"} or self.chance(0.5):
                changed[key] = f"func.coalesce({self.expression([source], kind, 1)}, {self.literal(kind)})"
                if self.chance(0.5):
                    changed[key] = self.literal(kind)
            else:
                changed[key] = self.expression([source], kind, 1)
        return changed

    def update_statement(self) -> str:
        """Write an UPDATE, perhaps with other tables in its criteria, and return the lines that run it."""
        self.start()
        tables = [*_COLUMNS, "reports", "contracts"]
        table, target, source = self.table_and_target(tables)
        changed = self._changes(table, source)
        if not changed:
            return self.delete_statement()
        text = f"update({target}).values({self.as_dict(changed)})"
        scope = [source]
        if self.chance(0.3):
            other = self.source(1)
            one = self.column([source], kind := self.pick(int=2, str=1)) or source.key[0]
            fitting = self.column([other], kind)
            if fitting is not None and one.kind == fitting.kind:
                text += f".where({one.source} == {fitting.source})"
                scope.append(other)
        if self.chance(0.85) or table == "countries":
            text += f".where({self.condition(scope, 1)})"
        return self._execute(f"{text}{self._returning(source, target)}{self._synchronize(target)}")

    def delete_statement(self) -> str:
        """Write a DELETE, perhaps with other tables in its criteria, and return the lines that run it."""
        self.start()
        _, target, source = self.table_and_target(_DELETABLE)
        text = f"delete({target})"
        scope = [source]
        if self.postgres and self.chance(0.25):
            other = self.source(0)
            one, fitting = self.column([source], "int"), self.column([other], "int")
            if one is not None and fitting is not None:
                text += f".where({one.source} == {fitting.source})"
                scope.append(other)
        text += f".where({self.condition(scope, 1)})"
        if self.postgres and self.chance(0.15) and target in TABLES:
            key = source.key[-1].source
            made = self.let("m", f'{text}.returning({key}.label("c0")).cte("{{name}}")')
            return self._execute(f"select({self.pick(**{f'{made}.c.c0': 1, 'func.count()': 1})}).select_from({made})")
        return self._execute(f"{text}{self._returning(source, target)}{self._synchronize(target)}")

    def _returning(self, source: Source, target: str) -> str:
        if not self.chance(0.35):
            return ""
        if target in self.models and self.chance(0.4):
            return f".returning({target})"
        columns: list[Column] = [self.random.choice(source.columns), *source.key]
        return f".returning({', '.join(column.source for column in columns)})"

    def _synchronize(self, target: str) -> str:
        if target not in self.models or self.chance(0.4):
            return ""
        how = self.pick(**{"'fetch'": 2, "'auto'": 1, "False": 1})
        return f".execution_options(synchronize_session={how})"

    def _execute(self, statement: str, parameters: str = "") -> str:
        name = self.let("w", statement)
        where = "db.connection()" if self.chance(0.1) and parameters == "" and "synchronize" not in statement else "db"
        rows = ".returning(" in statement or statement.startswith("select(")
        outcome = "done.all()" if rows else 'getattr(done, "rowcount", None)'
        return f"done = {where}.execute({name}{parameters})\nresult = {outcome}"
