"""No write creates, changes, moves or deletes a row of another tenant."""

import pytest
from sqlalchemy import Engine, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.orm import Session, sessionmaker

from tenantguard import bind, service_identity, system
from tenantguard.errors import ForeignTenantWrite, NotBound, StatementRefused
from tests.orm.conftest import A, B
from tests.orm.models import Account, Asset, Document, Folder, tags
from tests.support.engines import upsert


def everything(engine: Engine) -> list[tuple[str, str]]:
    with system("look at all rows"), Session(engine) as db:
        return sorted(map(tuple, db.execute(select(Document.tenant_id, Document.title))))


def foreign_id(engine: Engine) -> int:
    with bind(B), Session(engine) as db:
        found = db.scalars(select(Document.id)).first()
        assert found is not None
        return found


def test_new_rows_are_stamped_in_every_kind_of_insert(db: Session) -> None:
    document = Document(title="orm")
    db.add(document)
    db.flush()
    assert document.tenant_id == "a"
    db.execute(insert(Document).values(title="core"))
    db.execute(insert(Document), [{"title": "many1"}, {"title": "many2"}])
    db.execute(insert(Document).values([{"title": "multi1"}, {"title": "multi2", "tenant_id": "a"}]))
    db.execute(insert(Document.__table__).values(title="table", kind="document", size=1))
    db.execute(insert(Document).from_select(["title"], select(Folder.name)))
    db.bulk_save_objects([Document(title="bulk")])
    db.bulk_insert_mappings(Document, [{"title": "mapping"}])
    returned = db.scalars(insert(Document).returning(Document.tenant_id), [{"title": "r1"}, {"title": "r2"}]).all()
    assert returned == ["a", "a"]
    assert db.scalar(select(func.count()).select_from(Document)) == 4 + 12


FOREIGN = {
    "orm": lambda db: (db.add(Document(title="x", tenant_id="b")), db.flush()),
    "values": lambda db: db.execute(insert(Document).values(title="x", tenant_id="b")),
    "parameters": lambda db: db.execute(insert(Document), {"title": "x", "tenant_id": "b"}),
    "second row": lambda db: db.execute(
        insert(Document), [{"title": "x", "tenant_id": "a"}, {"title": "y", "tenant_id": "b"}]
    ),
    "multi values": lambda db: db.execute(insert(Document).values([{"title": "x"}, {"title": "y", "tenant_id": "b"}])),
    "named parameter": lambda db: db.execute(
        insert(Document).values(title="x", tenant_id=bindparam("whose")), {"whose": "b"}
    ),
    "expression": lambda db: db.execute(insert(Document).values(title="x", tenant_id=func.lower("B"))),
    "from select": lambda db: db.execute(
        insert(Document).from_select(["title", "tenant_id"], select(Folder.name, literal("b")))
    ),
    "bulk": lambda db: db.bulk_insert_mappings(Document, [{"title": "x", "tenant_id": "b"}]),
    "update": lambda db: db.execute(update(Document).values(tenant_id="b")),
    "update expression": lambda db: db.execute(update(Document).values(tenant_id=func.lower("B"))),
    "update parameter": lambda db: db.execute(update(Document).values(tenant_id=bindparam("whose")), {"whose": "b"}),
    "changed object": lambda db: (
        setattr(db.scalars(select(Document)).first(), "tenant_id", "b"),
        db.flush(),
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_tenant_key_is_refused(name: str, engine: Engine, db: Session) -> None:
    with pytest.raises(ForeignTenantWrite):
        FOREIGN[name](db)
    db.rollback()
    assert len(everything(engine)) == 8


def test_updates_and_deletes_touch_own_rows_only(engine: Engine, db: Session) -> None:
    foreign = foreign_id(engine)
    assert db.execute(update(Document).where(Document.id == foreign).values(title="x")).rowcount == 0
    assert db.execute(delete(Document).where(Document.id == foreign)).rowcount == 0
    assert db.execute(update(Document).values(title="mine")).rowcount == 4
    assert (
        db.execute(
            update(Document).where(Document.folder_id == Folder.id, Folder.name == "b-folder").values(title="x")
        ).rowcount
        == 0
    )
    db.bulk_update_mappings(Document, [{"id": db.scalars(select(Document.id)).first(), "size": 9}])
    db.commit()
    assert [title for tenant, title in everything(engine) if tenant == "b"] == ["b1", "b2", "b3", "b4"]
    db.execute(delete(tags))
    db.execute(delete(Document.__table__))
    db.commit()
    assert [tenant for tenant, _ in everything(engine)] == ["b"] * 4


def test_an_upsert_leaves_a_foreign_row_in_the_way_as_it_is(engine: Engine, db: Session) -> None:
    foreign = foreign_id(engine)
    name = engine.dialect.name
    db.execute(upsert(name, Document, {"id": foreign, "title": "taken"}, {"title": "taken"}))
    db.commit()
    assert "taken" not in [title for _, title in everything(engine)]
    own = db.scalars(select(Document.id)).first()
    row = {"id": own, "title": "mine"}
    db.execute(upsert(name, Document, row, lambda new: {"title": new.title}))
    db.commit()
    assert ("a", "mine") in everything(engine)
    with pytest.raises(ForeignTenantWrite):
        db.execute(upsert(name, Document, row, {"tenant_id": "b"}))


def test_integer_and_uuid_tenant_keys_are_scoped_and_stamped(engine: Engine) -> None:
    one, two = service_identity("t", tenant="1"), service_identity("t", tenant="2")
    for identity in (one, two):
        with bind(identity), Session(engine) as db, db.begin():
            db.execute(insert(Account).values(name=f"account of {identity.tenant.id}"))
    with bind(one), Session(engine) as db:
        assert list(db.scalars(select(Account.name))) == ["account of 1"]
        assert list(db.scalars(select(Account.organisation))) == [1]
    u1, u2 = (service_identity("t", tenant=f"00000000-0000-0000-0000-00000000000{n}") for n in (1, 2))
    for identity in (u1, u2):
        with bind(identity), Session(engine) as db, db.begin():
            db.execute(insert(Asset).values(name=f"asset of {identity.tenant.id[-1]}"))
    with bind(u2), Session(engine) as db:
        assert list(db.scalars(select(Asset.name))) == ["asset of 2"]
    with bind(A), Session(engine) as db, pytest.raises((StatementRefused, NotBound, ForeignTenantWrite)):
        db.scalars(select(Account.name)).all()


def test_the_refusal_of_a_write_shows_no_values(sessions: "sessionmaker[Session]") -> None:
    with bind(A), sessions() as db, pytest.raises(ForeignTenantWrite) as caught:
        db.execute(insert(Document).values(title="a secret title", tenant_id="b"))
    assert "secret" not in str(caught.value)
    assert "Leave the tenant key out" in str(caught.value)
