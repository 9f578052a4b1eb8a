"""INSERT with ON CONFLICT, on every target and with every way to set a value."""

from typing import Any

from sqlalchemy import (
    bindparam,
    column,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
    true,
)

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Invoice,
    Membership,
    Moving,
    Note,
    Region,
)
from tests.orm.attacks.shortcuts import NEW, STOLEN, C, D, K, N, doc, upsert

FOREIGN = doc(FIRST_OF_B)


def _on_id(build: Any, row: dict[str, Any] = FOREIGN) -> Attack:
    return upsert(D, lambda made: build(made.values(row)))


UPSERTS: dict[str, Attack] = {
    "index elements": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_=STOLEN)),
    "index columns": _on_id(lambda i: i.on_conflict_do_update(index_elements=[D.c.id], set_=STOLEN)),
    "index and where": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], index_where=D.c.id > 0, set_=STOLEN)
    ),
    "constraint": _on_id(lambda i: i.on_conflict_do_update(constraint=D.primary_key, set_=STOLEN)),
    "constraint by name": _on_id(lambda i: i.on_conflict_do_update(constraint="documents_pkey", set_=STOLEN)),
    "constraint by an evil name": _on_id(
        lambda i: i.on_conflict_do_update(constraint='x" DO UPDATE SET title = 1 --', set_=STOLEN)
    ),
    "text as target": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=[text("id) DO UPDATE SET title = 'stolen' --")], set_=STOLEN)
    ),
    "no target": _on_id(lambda i: i.on_conflict_do_update(set_=STOLEN)),
    "where": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_=STOLEN, where=true())),
    "where or": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_=STOLEN, where=(D.c.id == 1) | true())
    ),
    "where text": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_=STOLEN, where=text("1=1 OR 1=1"))
    ),
    "do nothing": _on_id(lambda i: i.on_conflict_do_nothing()),
    "do nothing with a tenant": _on_id(lambda i: i.on_conflict_do_nothing(), doc(tenant_id="b")),
    "do nothing with a foreign key": _on_id(lambda i: i.on_conflict_do_nothing(), doc(folder_id=FIRST_OF_B)),
    "excluded": _on_id(
        lambda i: i.on_conflict_do_update(
            index_elements=["id"], set_={"title": i.excluded.title, "size": i.excluded.size}
        )
    ),
    "excluded of all": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_=dict(i.excluded.items()))),
    "excluded tenant of another column": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"tenant_id": i.excluded.title}),
        doc(1, title="b"),
    ),
    "excluded foreign key of another column": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"folder_id": i.excluded.size}),
        doc(1, size=FIRST_OF_B),
    ),
    "set tenant": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"tenant_id": "b"}), doc(1)),
    "set tenant by column": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={D.c.tenant_id: "b"}), doc(1)
    ),
    "set tenant by a bare column": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={column("tenant_id"): "b"}), doc(1)
    ),
    "set tenant by a literal column": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={literal_column("tenant_id"): "b"}), doc(1)
    ),
    "set tenant by a text": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={text("tenant_id"): "b"}), doc(1)
    ),
    "set tenant in another case": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"TENANT_ID": "b"}), doc(1)
    ),
    "set foreign key in another case": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"Folder_Id": FIRST_OF_B}), doc(1)
    ),
    "set tenant by its name": upsert(
        N,
        lambda i: i.values(id_key=1).on_conflict_do_update(index_elements=[N.c.id_key], set_={"TenantKey": "b"}),
    ),
    "set tenant by its key": upsert(
        N,
        lambda i: i.values(id_key=1).on_conflict_do_update(index_elements=[N.c.id_key], set_={"owner_key": "b"}),
    ),
    "set foreign key by its name": upsert(
        N,
        lambda i: i.values(id_key=1).on_conflict_do_update(index_elements=[N.c.id_key], set_={"FolderID": FIRST_OF_B}),
    ),
    "set tenant as an expression": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"tenant_id": func.lower("B")}), doc(1)
    ),
    "set tenant as a subquery": _on_id(
        lambda i: i.on_conflict_do_update(
            index_elements=["id"], set_={"tenant_id": select(literal("b")).scalar_subquery()}
        ),
        doc(1),
    ),
    "set tenant by a parameter": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"tenant_id": bindparam("x", "b")}), doc(1)
    ),
    "set foreign key": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"folder_id": FIRST_OF_B}), doc(1)
    ),
    "set foreign key by a parameter": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"folder_id": bindparam("x", FIRST_OF_B)}), doc(1)
    ),
    "set key to b's": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"id": FIRST_OF_B}), doc(1)),
    "set title to b's": _on_id(
        lambda i: i.on_conflict_do_update(
            index_elements=["id"], set_={"title": select(func.max(D.c.title)).scalar_subquery()}
        ).returning(D.c.title),
        doc(1),
    ),
    "set title to a bare table's": _on_id(
        lambda i: i.on_conflict_do_update(
            index_elements=["id"],
            set_={"title": select(column("title")).select_from(table("documents")).scalar_subquery()},
        ).returning(D.c.title),
        doc(1),
    ),
    "set title by a text": _on_id(
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"title": text("tenant_id = 'b'")}), doc(1)
    ),
    "returning": _on_id(lambda i: i.on_conflict_do_update(index_elements=["id"], set_=STOLEN).returning(D)),
    "many rows": upsert(
        D,
        lambda i: i.values([doc(1), FOREIGN]).on_conflict_do_update(
            index_elements=["id"], set_={"title": i.excluded.title}
        ),
    ),
    "many parameters": upsert(
        D,
        lambda i: i.on_conflict_do_update(index_elements=["id"], set_={"title": i.excluded.title}),
        [doc(1, title="x"), doc(FIRST_OF_B, title="stolen")],
    ),
    "from select": upsert(
        D,
        lambda i: i.from_select(
            ["id", "title", "size", "body", "kind"],
            select(D.c.id + FIRST_OF_B - 1, D.c.title, D.c.size, D.c.body, D.c.kind),
        ).on_conflict_do_update(index_elements=["id"], set_=STOLEN),
    ),
    "a child": upsert(
        C,
        lambda i: i.values(id=FIRST_OF_B, text="x", document_id=1).on_conflict_do_update(
            index_elements=["id"], set_={"text": "stolen"}
        ),
    ),
    "a child is taken": upsert(
        C,
        lambda i: i.values(id=FIRST_OF_B, text="x", document_id=1).on_conflict_do_update(
            index_elements=["id"], set_={"document_id": 1}
        ),
    ),
    "a grandchild": upsert(
        Note,
        lambda i: i.values(id=FIRST_OF_B, text="x", comment_id=1).on_conflict_do_update(
            index_elements=["id"], set_={"text": "stolen"}
        ),
    ),
    "an association object": upsert(
        Membership,
        lambda i: i.values(topic_id=1, label_id=1).on_conflict_do_update(
            index_elements=["topic_id", "label_id"], set_={"label_id": FIRST_OF_B}
        ),
    ),
    "a composite key": upsert(
        Invoice,
        lambda i: i.values(tenant_id="b", number=7, title="x").on_conflict_do_update(
            index_elements=["tenant_id", "number"], set_=STOLEN
        ),
    ),
    "a replacing table": upsert(
        K,
        lambda i: i.values(id=FIRST_OF_B, code=NEW, title="x").on_conflict_do_update(
            index_elements=["id"], set_=STOLEN
        ),
    ),
    "a replacing table, another conflict": upsert(
        K,
        lambda i: i.values(id=NEW, code=FIRST_OF_B, title="x").on_conflict_do_update(
            index_elements=["id"], set_=STOLEN
        ),
    ),
    "a replacing table, set": upsert(
        K,
        lambda i: i.values(id=1, code=NEW, title="x").on_conflict_do_update(
            index_elements=["id"], set_={"code": FIRST_OF_B}
        ),
    ),
    "onupdate": upsert(
        Moving,
        lambda i: i.values([{"id": 60, "title": "x"}, {"id": 60, "title": "y"}][:1]).on_conflict_do_update(
            index_elements=["id"], set_={"title": "z"}
        ),
    ),
    "a shared row": upsert(
        Region, lambda i: i.values(code="north").on_conflict_do_update(index_elements=["code"], set_={"code": "south"})
    ),
}


ATTACKS: dict[str, Attack] = {f"upsert {name}": attack for name, attack in UPSERTS.items()}
