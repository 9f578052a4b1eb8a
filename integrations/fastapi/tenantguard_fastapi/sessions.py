"""A database session per request, as a FastAPI dependency, from the session makers of a guard.

The session is closed after the response was sent. Nothing is committed by itself: ``async with db.begin():``. The
barrier reads the bound identity when a statement runs, not here, so a session opened for a request without identity
reaches no row.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, overload

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker

from tenantguard.errors import ConfigurationError

__all__ = ["session_dependency"]


@overload
def session_dependency(sessions: async_sessionmaker[AsyncSession]) -> Callable[[], AsyncIterator[AsyncSession]]: ...
@overload
def session_dependency(sessions: sessionmaker[Session]) -> Callable[[], Iterator[Session]]: ...
def session_dependency(sessions: Any) -> Callable[[], Any]:
    """Return a dependency that yields a session and closes it.

    ::

        Db = Annotated[AsyncSession, Depends(session_dependency(guard.async_sessionmaker(engine)))]

    Args:
        sessions: what ``guard.async_sessionmaker`` or ``guard.sessionmaker`` returned. With the latter, FastAPI opens
            and closes the session in a thread, as it runs sync endpoints.

    Raises:
        ConfigurationError: it is neither.
    """
    if isinstance(sessions, async_sessionmaker):

        async def open_async_session() -> AsyncIterator[AsyncSession]:
            async with sessions() as session:
                yield session

        return open_async_session
    if isinstance(sessions, sessionmaker):

        def open_session() -> Iterator[Session]:
            with sessions() as session:
                yield session

        return open_session
    raise ConfigurationError(
        f"session_dependency() takes a sessionmaker or async_sessionmaker, not {type(sessions).__name__}.",
        mend="For example session_dependency(guard.async_sessionmaker(engine)).",
    )
