"""Engines with the barrier, on SQLite and on a real PostgreSQL and MariaDB, with the same rows of two tenants."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from tenantguard import bind, service_identity, system
from tests.orm.models import Base, Country, Document, Folder, Memo, Tag
from tests.support.engines import DATABASES, protected_engine

A, B = (service_identity("test", tenant=tenant) for tenant in ("a", "b"))


def seed(engine: Engine) -> None:
    with system("create the test's tables"):
        Base.metadata.create_all(engine)
        with Session(engine) as db, db.begin():
            db.add_all([Country(code="NZ"), Country(code="FR")])
    for identity, name in ((A, "a"), (B, "b")):
        with bind(identity), Session(engine) as db, db.begin():
            tag = Tag(name=f"{name}-tag")
            db.add(
                Folder(
                    name=f"{name}-folder",
                    documents=[
                        Document(title=f"{name}1", size=1, tags=[tag]),
                        Document(title=f"{name}2", size=2, tags=[tag]),
                        Memo(title=f"{name}3", size=3),
                    ],
                )
            )
            db.add(Document(title=f"{name}4", size=4))


@pytest.fixture(params=DATABASES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with protected_engine(request, request.param, Base.metadata) as made:
        seed(made)
        yield made


@pytest.fixture
def sessions(engine: Engine) -> "sessionmaker[Session]":
    return sessionmaker(engine)


@pytest.fixture
def db(sessions: "sessionmaker[Session]", request: pytest.FixtureRequest) -> Session:
    """A session while tenant a is bound. No generator: those can't enter bind()."""
    block = bind(A)
    block.__enter__()
    session = sessions()

    def close() -> None:
        session.close()
        block.__exit__(None, None, None)

    request.addfinalizer(close)
    return session
