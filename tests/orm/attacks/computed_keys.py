"""Foreign keys that the database computes: from a SELECT, under names that mean something else, by types."""

from sqlalchemy import (
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    literal,
    select,
    true,
    type_coerce,
    union_all,
    update,
)

from tests.orm.attacks.harness import FIRST_OF_B, Attack
from tests.orm.attacks.oddities import (
    Adding,
    Inventive,
    Shifting,
    featured,
)
from tests.orm.attacks.shortcuts import NEW, D, F, core, doc, plant, put, upsert

V = select(literal(FIRST_OF_B).label("folder_id")).subquery("v")
DV = D.alias("v")
FAKE = Table("excluded", MetaData(), Column("title", String, key="tenant_id"), Column("size", Integer, key="folder_id"))
START = select(F.c.id).cte("t")


COMPUTED: dict[str, Attack] = {
    "a shared table's": plant(select(featured.c.folder_id).where(featured.c.id >= FIRST_OF_B)),
    "a shared table's, by update": put(
        select(featured.c.folder_id).where(featured.c.id >= FIRST_OF_B).scalar_subquery()
    ),
    "values that go by the name of an outer alias": plant(
        select(select(DV.c.folder_id).select_from(V).correlate(DV).scalar_subquery()).select_from(DV)
    ),
    "values that go by the name of an outer alias, by themselves": plant(
        select(select(DV.c.folder_id).select_from(V).scalar_subquery()).select_from(DV)
    ),
    "values in a lateral": plant(
        select((side := select(DV.c.folder_id).select_from(V).lateral("l")).c.folder_id)
        .select_from(DV)
        .join(side, true())
    ),
    "a subquery of arithmetic": plant(select(select((F.c.id + FIRST_OF_B - 1).label("id")).subquery().c.id)),
    "a subquery of a union": plant(
        select(union_all(select(literal(FIRST_OF_B).label("id")), select(F.c.id)).subquery().c.id)
    ),
    "a subquery of a union, second": plant(
        select((u := union_all(select(F.c.id), select(literal(FIRST_OF_B))).subquery()).c.id).order_by(u.c.id.desc())
    ),
    "a CTE that is continued": plant(
        select(START.c.id).add_cte(START.union_all(select(literal(FIRST_OF_B)))).order_by(START.c.id.desc())
    ),
    "a recursive CTE that is continued": plant(
        select((one := select(F.c.id).cte("t", recursive=True)).c.id)
        .add_cte(one.union_all(select(one.c.id + FIRST_OF_B - 1).where(one.c.id < 2)))
        .order_by(one.c.id.desc())
    ),
    "values with a folder's column": plant(select(func.json_each("[1]").table_valued(F.c.id).c.id + FIRST_OF_B)),
    "an array with a folder's column": plant(
        select(func.unnest([FIRST_OF_B]).table_valued(F.c.id, name="x").render_derived().c.id)
    ),
    "a series with a folder's column": plant(
        select(func.generate_series(FIRST_OF_B, FIRST_OF_B).table_valued(F.c.id, name="x").render_derived().c.id)
    ),
    "a JSON array with a folder's column": plant(
        select(func.json_each(f"[{FIRST_OF_B}]").table_valued(Column("value", Integer, ForeignKey(F.c.id))).c.value)
    ),
    "a type that adds": put(type_coerce(F.c.id, Adding())),
    "a bind of a type that adds": put(bindparam("x", 1, type_=Adding())),
    "a max": put(select(func.max(featured.c.folder_id)).scalar_subquery()),
    "an excluded column that goes by another key": upsert(
        D,
        lambda i: i.values(doc(1, size=FIRST_OF_B)).on_conflict_do_update(
            index_elements=["id"], set_={"folder_id": FAKE.c.folder_id}
        ),
    ),
    "an excluded tenant key that goes by another key": upsert(
        D,
        lambda i: i.values(doc(1, title="b") | {"title": "b"}).on_conflict_do_update(
            index_elements=["id"], set_={"tenant_id": FAKE.c.tenant_id}
        ),
    ),
    "a column whose type adds": core(insert(Shifting).values(id=NEW, folder_id=1)),
    "a column whose type adds, flushed": lambda db: (db.add(Shifting(id=NEW, folder_id=1)), db.flush(), None)[-1],
    "a column whose type adds in SQL": core(insert(Shifting).values(id=NEW, other_id=1)),
    "a column whose type adds in SQL, by update": core(update(Shifting).where(Shifting.id == 1).values(other_id=1)),
    "a column whose type makes something of nothing": core(insert(Inventive).values(id=NEW, folder_id=None)),
    "a lower name": core(D.insert().values({**doc(), "Folder_id": FIRST_OF_B})),
}


ATTACKS: dict[str, Attack] = {f"foreign key of {name}": attack for name, attack in COMPUTED.items()}
