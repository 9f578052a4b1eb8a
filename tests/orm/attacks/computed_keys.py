"""Foreign keys that the database computes: from a SELECT, under names that mean something else, by types."""

from typing import Any

from sqlalchemy import (
    LABEL_STYLE_NONE,
    Column,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    column,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
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
from tests.orm.attacks.shortcuts import NEW, D, F, L, N, core, doc, plant, put, upsert

V = select(literal(FIRST_OF_B).label("folder_id")).subquery("v")
DV = D.alias("v")
FAKE = Table("excluded", MetaData(), Column("title", String, key="tenant_id"), Column("size", Integer, key="folder_id"))
START = select(F.c.id).cte("t")
W = select(literal("x").label("t"), literal(FIRST_OF_B).label("id")).subquery("w")
BESIDE_W = W.join(F, F.c.id == 1)
ALIAS = F.alias()


def one_of(subquery: Any, place: int) -> Attack:
    """Update the foreign key to the column of a subquery or CTE in one place, whatever it is called."""
    chosen = list(subquery.columns)[place]
    return put(select(chosen).select_from(subquery).limit(1).scalar_subquery())


def renamed(subquery: Any, name: str, key: str) -> Attack:
    """Update it to a column that says another key than its name."""
    made: Any = column(name)
    made.key, made.table = key, subquery
    return put(select(made).select_from(subquery).limit(1).scalar_subquery())


def shadowed(inner: Any) -> Attack:
    """Update it to the column of an outer alias, below an inner element that may get the alias's name."""
    value = select(ALIAS.c.id).select_from(inner).correlate(ALIAS).scalar_subquery()
    return plant(select(value).select_from(ALIAS))


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
    "columns before it that are a text": core(
        D.insert().from_select(
            ["folder_id", "size", "title"], select(text(str(FIRST_OF_B)), F.c.id, F.c.name).where(F.c.id == 1)
        )
    ),
    "columns before it that are a star": core(
        D.insert().from_select(
            ["title", "folder_id", "size"], select(literal_column("w.*"), F.c.id).select_from(BESIDE_W)
        )
    ),
    "a subquery with a star": one_of(select(literal_column("w.*"), F.c.id).select_from(BESIDE_W).subquery(), 1),
    "a CTE with a star": one_of(select(literal_column("w.*"), F.c.id).select_from(BESIDE_W).cte(), 1),
    "a subquery with a star of text": one_of(select(text("w.*"), F.c.id).select_from(BESIDE_W).subquery(), 0),
    "a subquery with a column of text": one_of(select(text("w.id"), F.c.id).select_from(BESIDE_W).subquery(), 0),
    "a subquery with a column of text before others": one_of(
        select(text("w.id"), F.c.id.label("z"), F.c.id).select_from(BESIDE_W).subquery(), 1
    ),
    "a subquery with a literal column": one_of(
        select(literal_column("w.id"), F.c.id).select_from(BESIDE_W).subquery(), 1
    ),
    "a CTE with a literal column": one_of(select(literal_column("w.id"), F.c.id).select_from(BESIDE_W).cte(), 1),
    "a CTE with two columns of one name": one_of(
        select(literal(FIRST_OF_B).label("FolderID"), N.c.folder_key).set_label_style(LABEL_STYLE_NONE).cte(), 1
    ),
    "a subquery with two columns of a name that was made": one_of(
        select(literal(FIRST_OF_B).label("id_1"), L.c.id, F.c.id).where(L.c.id == F.c.id).subquery(), 2
    ),
    "a CTE with two columns of a name that was made": one_of(
        select(literal(FIRST_OF_B).label("id_1"), L.c.id, F.c.id).where(L.c.id == F.c.id).cte(), 2
    ),
    "a column of another key": renamed(select(F.c.id.label("k"), literal(FIRST_OF_B).label("n")).subquery(), "n", "k"),
    "a column of no key": renamed(select(F.c.id.label("k"), literal(FIRST_OF_B).label("n")).subquery(), "n", "x"),
    "a column that says another table": renamed(F, "size", "id"),
    "an outer alias whose name was made": shadowed(select(literal(FIRST_OF_B).label("id")).subquery("folders_1")),
    "an outer alias whose name was made, by a CTE": shadowed(select(literal(FIRST_OF_B).label("id")).cte("folders_1")),
    "a lower name": core(D.insert().values({**doc(), "Folder_id": FIRST_OF_B})),
}


ATTACKS: dict[str, Attack] = {f"foreign key of {name}": attack for name, attack in COMPUTED.items()}
