"""Engines with the barrier, on SQLite and on a real PostgreSQL, with the same rows of two tenants."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import StaticPool

from tenantguard import bind, service_identity, system
from tenantguard.orm import protect
from tests.orm.models import Base, Country, Document, Folder, Memo, Tag

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


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "sqlite":
        made = create_engine("sqlite://", poolclass=StaticPool)
    else:
        url: str = request.getfixturevalue("postgres_url")
        made = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    protect(made)
    seed(made)
    yield made
    made.dispose()


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
