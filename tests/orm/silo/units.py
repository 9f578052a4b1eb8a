"""Random work with the ORM's session: loader strategies, legacy queries, units of work, merges, savepoints.

Each method writes what has to stand ready before it in `lines`, and returns the lines that run.
"""

from typing import Any, Final

from sqlalchemy.orm import RelationshipProperty

from tests.orm.silo.expressions import Source, columns_of
from tests.orm.silo.world import MODELS
from tests.orm.silo.writes import MODEL_OF, StatementWriter

__all__ = ["SessionWriter"]

_LOADERS: Final = ("joinedload", "selectinload", "subqueryload", "lazyload", "immediateload", "raiseload", "noload")
_RELATIONS: Final[dict[str, dict[str, RelationshipProperty[Any]]]] = {
    model.__name__: {one.key: one for one in model.__mapper__.relationships if one.key not in {"dynamic", "write_only"}}
    for model in MODELS
}
_KEYS: Final = {
    "Person": ("a", 3), "Folder": ("a", 4), "Tag": ("a", 3), "Document": ("a", 8), "Memo": ("a", 8), "Report": ("a", 8),
    "Contract": ("a", 8), "Entry": ("a", 4),
}  # fmt: skip


class SessionWriter(StatementWriter):
    """Writes steps of a session."""

    def _entities(self, model: str | None = None, depth: int = 1) -> tuple[Source, str]:
        self.start()
        source = self.aliased(model or self.random.choice(list(self.models)))
        if self.chance(0.5):
            bare = str(source.model)
            self.lines.pop()
            source = Source(bare, *columns_of(bare, "", self.models[bare]), bare)
        where = f".where({self.condition([source], depth)})" if self.chance(0.7) else ""
        return source, where

    def _path(self, source: Source) -> tuple[str, str] | None:
        """Return a loader option along one or two relationships, and the lines' expression that walks it."""
        relations = _RELATIONS[str(source.model)]
        if not relations:
            return None
        key = self.random.choice(list(relations))
        loader = self.random.choice(_LOADERS[:5])
        option = f"{loader}({source.name}.{key})"
        target = relations[key].mapper.class_.__name__
        if _RELATIONS[target] and self.chance(0.5):
            further = self.random.choice(list(_RELATIONS[target]))
            option += f".{self.random.choice(_LOADERS[:5])}({target}.{further})"
        return option, key

    def load_entities(self) -> str:
        """Load entities with random loader options, and walk their relationships."""
        source, where = self._entities()
        options, walked = [], []
        for _ in range(self.random.choice((0, 1, 1, 2))):
            path = self._path(source)
            if path and path[1] not in walked:
                options.append(path[0])
                walked.append(path[1])
        if walked and self.chance(0.15):
            options.append(f"{self.random.choice(('raiseload', 'noload'))}({source.name}.{walked.pop()})")
            options.pop(-2)
        if source.model == "Document" and self.chance(0.3):
            options.append(self.random.choice((
                f"undefer({source.name}.body)", f"load_only({source.name}.title, {source.name}.size)",
                f"defer({source.name}.title)", f"selectin_polymorphic({source.name}, [Report, Contract])",
            )))  # fmt: skip
        if self.chance(0.1):
            options.append(self.random.choice((
                "with_loader_criteria(Document, Document.size > 3, include_aliases=True)",
                "with_loader_criteria(Note, true())", "with_loader_criteria(Folder, Folder.tenant_id == 'b')",
            )))  # fmt: skip
        if len({option.split("(")[1].split(")")[0] for option in options}) < len(options):
            options = options[:1]
        text = f"select({source.name}){where}" + (f".options({', '.join(options)})" if options else "")
        if self.chance(0.2) and source.name != "Country":
            text += ".execution_options(populate_existing=True)"
        if self.chance(0.1) and "joinedload" not in text:
            text += f".with_for_update({self.pick(**{'': 1, f'of={source.name}': 1})})"
        name = self.let("w", text)
        walk = ", ".join(f"one.{key}" for key in walked)
        ordered = "key=lambda one: repr(inspect(one).identity)"
        return f"kept = sorted(db.scalars({name}).unique().all(), {ordered})\nresult = [(one, {walk}) for one in kept]"

    def eager_joined(self) -> str:
        """Join a relationship by hand, and fill it from the rows."""
        source, where = self._entities(self.random.choice(("Folder", "Document", "Note", "Person", "Tag", "Reply")))
        key = self.random.choice(list(_RELATIONS[str(source.model)]))
        target = _RELATIONS[str(source.model)][key].mapper.class_.__name__
        other = self.aliased(target)
        call = self.random.choice(("join", "outerjoin"))
        joined = f"{source.name}.{key}.of_type({other.name})"
        text = f"select({source.name}).{call}({joined}){where}.options(contains_eager({joined}))"
        if self.chance(0.4):
            text += f".where({self.condition([other], 1)})"
        name = self.let("w", f"{text}.execution_options(populate_existing=True)")
        return f"result = [(one, one.{key}) for one in db.scalars({name}).unique().all()]"

    def legacy_query(self) -> str:
        """Use Session.query()."""
        source, _ = self._entities()
        condition = self.condition([source], 1)
        keys = ", ".join(key.source for key in source.key)
        column = self.random.choice(source.columns).source
        base = f"db.query({source.name}).filter({condition})"
        name = self.let("w", condition)
        base = f"db.query({source.name}).filter({name})"
        return "result = " + self.random.choice((
            f"{base}.all()", f"{base}.count()", f"{base}.order_by({keys}).first()", f"{base}.with_entities({column}).all()",
            f"db.query({base}.exists()).scalar()", f"ordered({base}.order_by({keys}).limit(3).offset(1).all())",
            f"{base}.union(db.query({source.name})).count()", f"list({base}.yield_per(2))",
            f"db.query({column}, func.count()).filter({name}).group_by({column}).all()", f"{base}.one_or_none()",
            f"db.query({base}.subquery()).count()", f"ordered({base}.order_by({keys})[0:2])", f"{base}.distinct().count()",
            f"db.query({source.name}).from_statement(select({source.model}).where({self.condition([self._bare(source)], 0)})).all()"
            if source.name == source.model else f"{base}.all()",
        ))  # fmt: skip

    def _bare(self, source: Source) -> Source:
        model = str(source.model)
        return Source(model, *columns_of(model, "", self.models[model]), model)

    def key(self, model: str) -> str:
        """Return a primary key, as Python source: mostly of a row of a's, sometimes one that b alone has."""
        if model == "Country":
            return self.value("country")
        if model in {"Note", "Reply"}:
            at = self.random.choice(("1, 1", "1, 2", "2, 1", "4, 1")).split(", ")
            number = f", {at[0]}" if model == "Reply" else ""
            word = CANARY_UID if self.chance(0.1) else "A-uid"
            return f'("{word}-{at[0]}", {at[1]}{number})'
        if model == "Event":
            return self.random.choice(("'A-event-1'", "'A-event-2'", f"'{CANARY_UID.replace('uid', 'event')}-1'"))
        tenant = "b" if self.chance(0.08) else "a"
        return f'("{tenant}", {51 if self.chance(0.05) else self.random.randint(1, _KEYS[model][1])})'

    def get(self) -> str:
        """Read by primary key, and look at a relationship."""
        model = self.random.choice(list(self.models))
        relations = list(_RELATIONS[model])
        walk = f", one and one.{self.random.choice(relations)}" if relations and self.chance(0.5) else ""
        options = self.random.choice(("", "", ", populate_existing=True"))
        return f"one = db.{self.pick(get=5, get_one=1)}({model}, {self.key(model)}{options})\nresult = (one{walk})"

    def side_collections(self) -> str:
        """Use dynamic and write-only collections, proxies and hybrids."""
        self.start()
        document = Source("Document", *columns_of("Document", "", self.models["Document"]), "Document")
        condition = self.condition([document], 1)
        name = self.let("w", condition)
        use = self.random.choice((
            f"one.dynamic.filter({name}).count()", f"one.dynamic.filter({name}).all()",
            f"db.scalars(one.write_only.select().where({name})).all()", "one.titles[:]", "(one.total, one.largest)",
            f"db.scalar(select(func.count()).where(with_parent(one, Folder.documents), {name}))",
            "db.scalars(select(Document.title).where(Document.big)).all()",
            "db.scalars(select(Folder.name).where(Folder.titles.contains('A title 1'))).all()",
        ))  # fmt: skip
        return f"one = db.get(Folder, {self.key('Folder')})\nresult = one and ({use})"

    # --- units of work -----------------------------------------------------------------------------------

    def _object(self, model: str, **more: str) -> str:
        table = {name: table for table, name in MODEL_OF.items()}[model]
        row = {key: value for key, value in self.row(table).items() if key != "kind"} | more
        return f"{model}({', '.join(f'{key}={value}' for key, value in row.items())})"

    def add_objects(self) -> str:
        """Add a graph of objects, joined by relationships."""
        shape = self.pick(folder=2, document=3, kinds=2, note=2, plain=2)
        if shape == "plain":
            models = [self.random.choice(list(MODEL_OF.values())) for _ in range(self.random.randint(1, 3))]
            made = f"[{', '.join(self._object(model) for model in models)}]"
        elif shape == "folder":
            children = ", ".join(self._document() for _ in range(self.random.randint(0, 2)))
            parent = f"db.get(Folder, {self.key('Folder')})"
            made = f"[{self._object('Folder', documents=f'[{children}]', parent=parent)}]"
        elif shape == "note":
            key = self.key("Document")
            made = f"[Note(document=db.get(Document, {key}), position={self.value('new')}, text='A new', replies=[Reply(number=1, text='A')])]"
        else:
            made = f"[{self._document(kinds=shape == 'kinds')}]"
        return f"made = {made}\ndb.add_all(made)\ndb.flush()\nresult = made"

    def _document(self, *, kinds: bool = False) -> str:
        number = self.random.randint(100, 99_999)
        given = [f"id={number}", f"uid='A-new-{number}'", f"title={self.literal('str', 0.1)}"]
        given += [f"notes=[Note(position={one}, text='A')]" for one in (1,) if self.chance(0.4)]
        given += [
            f"tags=[db.get_one(Tag, ('a', {self.random.randint(1, 3)})), Tag(id={number}, label='A-{number}')]"
        ] * self.chance(0.3)
        given += [f"owner=db.get(Person, {self.key('Person')})"] * self.chance(0.3)
        given += [f"watchers=[db.get_one(Person, ('a', {self.random.randint(1, 3)}))]"] * self.chance(0.3)
        extra = {"Memo": "priority=3", "Report": "pages=4", "Contract": "worth=5"}
        kind = self.random.choice(("Memo", "Report", "Contract")) if kinds else "Document"
        return f"{kind}({', '.join([*given, *([extra[kind]] if kinds else [])])})"

    def change_object(self) -> str:
        """Load an object, change it, and flush."""
        change = self.random.choice((
            "one.title = 'A changed'", "one.size += 1", f"one.folder = db.get(Folder, {self.key('Folder')})",
            "one.folder = None", f"one.owner = db.get(Person, {self.key('Person')})", "one.notes = []",
            f"one.notes.append(Note(position={self.value('new')}, text={self.literal('str', 0.1)}))", "one.notes[:] = sorted(one.notes, key=lambda note: note.position)[:1]",
            f"one.tags.append(Tag(id={self.value('new')}, label='{self.value('fresh')[1:-1]}'))", "one.tags = sorted(one.tags, key=lambda tag: tag.id)[1:]",
            f"one.watchers = [db.get_one(Person, ('a', {self.random.randint(1, 3)}))]", f"one.folder_id = {self.value('folder?')}",
            f"one.owner_id = {self.value('person?')}", "one.tenant_id = 'b'", f"one.id = {self.value('new')}",
            f"one.made = {self.literal('date')}", "one.size = Document.size * 2", "one.size = select(func.max(Document.size)).scalar_subquery()",
        ))  # fmt: skip
        condition = "if one is not None:"
        return (
            f"one = db.get(Document, {self.key('Document')})\n{condition}\n    {change}\n    db.flush()\nresult = one"
        )

    def change_other(self) -> str:
        """Change objects of the other classes."""
        model, change = self.random.choice((
            ("Person", "one.name = 'A renamed'"), ("Person", "one.documents = sorted(one.documents, key=lambda document: document.id)[1:]"), ("Person", "one.country_code = 'FR'"),
            ("Folder", "one.rank = 5"), ("Folder", f"one.parent = db.get(Folder, {self.key('Folder')})"), ("Folder", "one.documents = []"),
            ("Folder", f"one.children.append(Folder(id={self.value('new')}, name={self.value('fresh')}))"), ("Tag", "one.label = 'A-renamed'"),
            ("Tag", "one.documents = sorted(one.documents, key=lambda document: document.id)[:1]"), ("Note", "one.text = 'A changed'"), ("Note", "one.replies = []"),
            ("Note", f"one.document = db.get(Document, {self.key('Document')})"), ("Entry", "one.amount = (one.amount or 0) + 1"),
            ("Event", "one.level = 5"), ("Country", "one.area += 1"), ("Report", "one.pages += 1"), ("Contract", "one.worth = None"), ("Memo", "one.priority = 9"),
            ("Report", "one.title = 'A report'"),
        ))  # fmt: skip
        return (
            f"one = db.get({model}, {self.key(model)})\nif one is not None:\n    {change}\n    db.flush()\nresult = one"
        )

    def delete_object(self) -> str:
        """Delete an object with its cascades."""
        model = self.random.choice(
            (
                "Document",
                "Document",
                "Report",
                "Contract",
                "Memo",
                "Note",
                "Reply",
                "Tag",
                "Entry",
                "Event",
                "Folder",
                "Person",
            )
        )
        return f"one = db.get({model}, {self.key(model)})\nif one is not None:\n    db.delete(one)\n    db.flush()\nresult = one is None"

    def merge(self) -> str:
        """Merge an object that was made by hand, pickled, or detached."""
        if self.chance(0.6):
            model = self.random.choice(("Document", "Folder", "Person", "Note", "Entry", "Tag"))
            key = self.key(model)
            given = {"Document": "title='A merged'", "Folder": "rank=3", "Person": "name='A merged'", "Note": "text='A merged'",
                     "Entry": "amount=8", "Tag": "label='A merged'"}[model]  # fmt: skip
            names = [
                self.models[model].__mapper__.get_property_by_column(one).key
                for one in self.models[model].__mapper__.primary_key
            ]
            keys = f"**dict(zip({names!r}, {key}))"
            return f"result = db.merge({model}({keys}, {given}))\ndb.flush()"
        model = self.random.choice(("Document", "Folder", "Person", "Report"))
        load = self.pick(**{"True": 2, "False": 1})
        return (
            f"one = db.get({model}, {self.key(model)})\nif one is not None:\n    one = pickle.loads(pickle.dumps(one))\n"
            f"    db.{self.pick(expunge_all=1, close=1)}()\n    result = db.merge(one, load={load})\n    db.flush()"
        )

    def bulk(self) -> str:
        """Use the bulk methods, and UPDATE by primary key."""
        model = self.random.choice(("Folder", "Tag", "Document", "Note", "Entry", "Person"))
        table = {name: table for table, name in MODEL_OF.items()}[model]
        shape = self.pick(insert=2, save=2, update=2, executemany=2)
        if shape == "save":
            return f"db.bulk_save_objects([{self._object(model)}, {self._object(model)}])"
        if shape == "insert":
            rows = ", ".join(map(self.as_dict, self.rows(table, self.random.randint(1, 4))))
            return f"db.bulk_insert_mappings({model}, [{rows}])"
        model, changes = self.random.choice((
            ("Document", "title='A bulk'"), ("Folder", "rank=6"), ("Entry", "amount=5"), ("Note", "stars=1"),
        ))  # fmt: skip
        mapper = self.models[model].__mapper__
        names = [mapper.get_property_by_column(one).key for one in mapper.primary_key]
        rows = ", ".join(
            f"dict(zip({names!r}, {self.key(model)}), {changes})" for _ in range(self.random.randint(1, 2))
        )
        if shape == "update":
            return f"db.bulk_update_mappings({model}, [{rows}])"
        return f"db.execute(update({model}), [{rows}])"

    # --- the session's own state -------------------------------------------------------------------------

    def state(self) -> str:
        """Commit, roll back, expire, refresh, or look at what was loaded before."""
        return self.random.choice((
            "db.commit()", "db.commit()", "db.rollback()", "db.expire_all()\nresult = list(kept)", "db.expunge_all()\nkept = []",
            "for one in kept:\n    db.refresh(one)\nresult = kept", "for one in kept[:2]:\n    db.expire(one)\nresult = [inspect(one).identity and one for one in kept]",
            "result = [db.get(type(one), inspect(one).identity) for one in kept]", "db.flush()\nresult = len(db.identity_map)",
            "db.close()\nkept = []", "result = [(one, [getattr(one, key) for key in inspect(type(one)).relationships.keys() if key not in ('dynamic', 'write_only')]) for one in kept[:2]]",
            "db.execute(select(Document).where(Document.id == 1)).all()\nresult = sorted(map(repr, db.identity_map))",
            "db.refresh(db.get(Document, ('a', 1)), ['title', 'notes'])\nresult = db.get(Document, ('a', 1)).notes",
            "result = [object_session(one) is db for one in kept]", "result = db.scalar(select(func.count()).select_from(Document))",
        ))  # fmt: skip


CANARY_UID: Final = "B-CANARY-uid"
