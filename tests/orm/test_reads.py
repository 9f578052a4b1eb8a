"""Every way to read gives the rows of the bound tenant, and of no other."""

import pytest
from sqlalchemy import Integer, and_, cast, exists, func, lambda_stmt, or_, select, true, union_all, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    selectinload,
    subqueryload,
    with_polymorphic,
)

from tenantguard.errors import StatementRefused
from tests.orm.models import Country, Document, Folder, Memo, Tag, tags

OWN = ["a1", "a2", "a3", "a4"]
title = Document.title
documents = Document.__table__
other = aliased(Document)
recursive = select(Folder.id).cte("tree", recursive=True)

READS = {
    "entities": (lambda: select(title), OWN),
    "core table": (lambda: select(documents.c.title), OWN),
    "core alias": (lambda: select(documents.alias("d").c.title), OWN),
    "orm alias": (lambda: select(other.title), OWN),
    "or criteria": (lambda: select(title).where(or_(Document.size > 0, true())), OWN),
    "foreign tenant asked for": (lambda: select(title).where(Document.tenant_id == "b"), []),
    "tenant or other": (lambda: select(title).where(or_(Document.tenant_id == "b", Document.size == 1)), ["a1"]),
    "inner join": (lambda: select(title).join(Document.folder), ["a1", "a2", "a3"]),
    "outer join": (lambda: select(title).outerjoin(Document.folder), OWN),
    "outer join on true": (
        lambda: select(Folder.name).select_from(Document).outerjoin(Folder, true()),
        ["a-folder"] * 4,
    ),
    "cross join": (lambda: select(title).join(Folder, true()), OWN),
    "comma join": (lambda: select(title, Folder.name).where(Document.folder_id == Folder.id), ["a1", "a2", "a3"]),
    "self join": (lambda: select(title).join(other, other.id != Document.id).distinct(), OWN),
    "subquery": (lambda: select(select(title).subquery().c.title), OWN),
    "cte": (lambda: select(select(title).cte().c.title), OWN),
    "recursive cte": (
        lambda: select(Folder.name).join(
            (tree := recursive.union_all(select(Folder.id).join(recursive, Folder.parent_id == recursive.c.id))),
            Folder.id == tree.c.id,
        ),
        ["a-folder"],
    ),
    "scalar subquery": (
        lambda: select(select(func.max(title)).scalar_subquery()),
        ["a4"],
    ),
    "correlated exists": (
        lambda: select(Folder.name).where(exists().where(Document.folder_id == Folder.id)),
        ["a-folder"],
    ),
    "in subquery": (lambda: select(title).where(Document.id.in_(select(other.id))), OWN),
    "union": (lambda: union_all(select(title), select(Folder.name)), ["a-folder", *OWN]),
    "window": (lambda: select(func.first_value(title).over(order_by=title)).limit(1), ["a1"]),
    "aggregate": (lambda: select(func.min(title)), ["a1"]),
    "group by": (lambda: select(Document.tenant_id).group_by(Document.tenant_id), ["a"]),
    "association table": (lambda: select(Tag.name).join(tags, tags.c.tag_id == Tag.id), ["a-tag", "a-tag"]),
    "association alone": (lambda: select(tags.c.tenant_id), ["a", "a"]),
    "many to many": (lambda: select(title).join(Document.tags), ["a1", "a2"]),
    "single inheritance": (lambda: select(Memo.title), ["a3"]),
    "polymorphic": (lambda: select(with_polymorphic(Document, [Memo]).title), OWN),
    "has": (lambda: select(title).where(Document.folder.has(Folder.name == "b-folder")), []),
    "any": (lambda: select(Folder.name).where(Folder.documents.any(Document.size == 1)), ["a-folder"]),
    "lambda": (lambda: lambda_stmt(lambda: select(Document.title)), OWN),
    "startswith": (lambda: select(title).where(title.startswith("a")), OWN),
    "contains": (lambda: select(title).where(or_(title.contains("1"), title.icontains("B1"))), ["a1"]),
    "endswith": (lambda: select(title).where(title.endswith("4")), ["a4"]),
    "shared": (lambda: select(Country.code), ["FR", "NZ"]),
    "nested and": (lambda: select(title).where(and_(true(), or_(true(), Document.size == 9))), OWN),
}


@pytest.mark.parametrize("name", READS)
def test_a_read_gives_the_tenants_own_rows(name: str, db: Session) -> None:
    make, expected = READS[name]
    found = sorted(db.scalars(make()))
    assert not [value for value in found if value.startswith("b")]
    if expected is not None:
        assert found == expected


def test_a_full_join_keeps_unmatched_rows_of_the_tenant_on_both_sides(db: Session) -> None:
    if db.get_bind().dialect.name == "mariadb":  # whose SQL has none
        with pytest.raises(ProgrammingError, match="FULL OUTER JOIN"):
            db.execute(select(title, Folder.name).join(Folder, Folder.id == Document.folder_id, full=True))
        return
    rows = db.execute(select(title, Folder.name).join(Folder, Folder.id == Document.folder_id, full=True)).all()
    assert {tuple(row) for row in rows} == {("a1", "a-folder"), ("a2", "a-folder"), ("a3", "a-folder"), ("a4", None)}
    folder = aliased(Folder)
    rows = db.execute(select(title, folder.name).join(folder, folder.id == Document.folder_id, full=True)).all()
    assert {tuple(row) for row in rows} == {("a1", "a-folder"), ("a2", "a-folder"), ("a3", "a-folder"), ("a4", None)}


def test_get_finds_own_rows_only(db: Session) -> None:
    own = db.scalars(select(Document.id).order_by(Document.id)).first()
    assert own is not None
    assert db.get(Document, own) is not None
    ids = set(range(1, 20)) - set(db.scalars(select(Document.id)))
    assert [db.get(Document, number) for number in ids] == [None] * len(ids)


@pytest.mark.parametrize("load", [selectinload, subqueryload, joinedload])
def test_loader_strategies_load_own_rows(load, db: Session) -> None:
    folders = db.scalars(select(Folder).options(load(Folder.documents))).unique().all()
    assert [sorted(one.title for one in folder.documents) for folder in folders] == [["a1", "a2", "a3"]]


def test_lazy_loads_and_contains_eager_load_own_rows(db: Session) -> None:
    folder = db.scalars(select(Folder)).one()
    assert sorted(one.title for one in folder.documents) == ["a1", "a2", "a3"]
    found = db.scalars(select(Folder).join(Folder.documents).options(contains_eager(Folder.documents))).unique().all()
    assert len(found) == 1


def test_legacy_query_streams_and_partitions_are_scoped(db: Session) -> None:
    assert sorted(one.title for one in db.query(Document)) == OWN
    assert db.query(Document).filter_by(tenant_id="b").count() == 0
    assert sorted(db.scalars(select(title).execution_options(yield_per=1))) == OWN


def test_core_connections_are_scoped(db: Session) -> None:
    assert sorted(db.connection().execute(select(documents.c.title)).scalars()) == OWN


def test_rows_are_locked_by_the_name_of_their_table(db: Session) -> None:
    statement = select(Document).join(Document.folder).with_for_update(of=Document)
    assert len(db.scalars(statement).all()) == 3
    assert len(db.scalars(select(other).with_for_update(of=other)).all()) == 4


def test_a_full_join_in_a_union_gives_no_row_of_others(db: Session) -> None:
    """SQLite before 3.45 reads the criteria of one part as those of the other's FULL JOIN; there it is refused."""
    full = select(Folder.name).select_from(Folder).join(other, other.folder_id == Folder.id, full=True)
    made = union_all(select(title.label("x")), full).subquery()
    try:
        found = set(db.scalars(select(made.c.x)))
    except StatementRefused:
        assert db.get_bind().dialect.name == "sqlite"
    except ProgrammingError:
        assert db.get_bind().dialect.name == "mariadb"  # whose SQL has none
    else:
        assert found == {*OWN, "a-folder", None}


def test_an_error_tells_nothing_of_a_row_of_others(db: Session) -> None:
    """What fails on some rows is evaluated on the tenant's alone."""
    sqlite = db.get_bind().dialect.name == "sqlite"
    fails = func.json_extract(title, "$.n") == 1 if sqlite else cast(title, Integer) == 1
    for foreign in (5, 6, 7, 8):
        assert db.scalars(select(title).where(Document.id == foreign, fails)).all() == []
        assert db.scalars(select(Folder.name).outerjoin(Document, and_(Document.id == foreign, fails))).all() == [
            "a-folder"
        ]
        assert db.execute(update(Document).where(Document.id == foreign, fails).values(size=1)).rowcount == 0
