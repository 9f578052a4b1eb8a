"""One database behind two engines: async for most routes, sync for those that are not."""

from sqlalchemy import Engine, create_engine, func, make_url, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session

from examples.fastapi_app.models import Base, Comment, Document, Folder, Language
from tenantguard.context import bind
from tenantguard.identity import service_identity
from tenantguard.permits import system

_DRIVERS = {"sqlite": ("sqlite+aiosqlite", "sqlite"), "postgresql": ("postgresql+asyncpg", "postgresql+psycopg")}

COMPANIES = {
    "acme": {"Plans": ["Roadmap 2027", "Hiring plan"], "Legal": ["Contract with Initech"]},
    "globex": {"Research": ["Weather machine", "Ocean study"]},
}


def engines(database_url: str) -> tuple[AsyncEngine, Engine]:
    """Make the async and the sync engine for a URL without driver."""
    url = make_url(database_url)
    try:
        async_driver, sync_driver = _DRIVERS[url.get_backend_name()]
    except KeyError:
        raise SystemExit(f"DATABASE_URL is for {url.get_backend_name()!r}; use sqlite or postgresql.") from None
    return create_async_engine(url.set(drivername=async_driver)), create_engine(url.set(drivername=sync_driver))


def create_tables(engine: Engine) -> None:
    """Create what is missing. Only a system context may send DDL."""
    with system("create the example's tables"):
        Base.metadata.create_all(engine)


def add_sample_data(engine: Engine) -> None:
    """Fill each company's shelf once, as a service of that company: even this code can't mix them up."""
    with system("reference data of the example"), Session(engine) as db, db.begin():
        if not db.get(Language, "en"):
            db.add_all([Language(code="en", name="English"), Language(code="de", name="German")])
    for company, folders in COMPANIES.items():
        with bind(service_identity("sample-data", tenant=company)), Session(engine) as db, db.begin():
            if db.scalar(select(func.count()).select_from(Folder)):
                continue
            for name, titles in folders.items():
                documents = [
                    Document(
                        title=title,
                        body=f"{title}, first draft. The rest is still to be written.",
                        created_by="sample-data",
                        comments=[Comment(text="Looks good.", created_by="sample-data")],
                    )
                    for title in titles
                ]
                db.add(Folder(name=name, documents=documents))
