"""The routes of the document service. None of them filters by company: the barrier does.

They come in the kinds that apps have: async, sync, streaming, with background work, over WebSocket.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Request, Response, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from examples.fastapi_app.models import Comment, Document, Folder
from tenantguard import current_actor, current_identity, current_tenant, requires

router = APIRouter()


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    sessions: async_sessionmaker[AsyncSession] = request.app.state.sessions
    async with sessions() as db:
        yield db


def open_sync_session(request: Request) -> Iterator[Session]:
    with request.app.state.sync_sessions() as db:
        yield db


Db = Annotated[AsyncSession, Depends(open_session)]
SyncDb = Annotated[Session, Depends(open_sync_session)]


class DocumentIn(BaseModel):
    title: str = Field(min_length=1, max_length=200)
    body: str = ""
    folder_id: int | None = None


class DocumentOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    created_by: str
    tenant_id: str


class FolderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str


@router.get("/documents")
@requires("documents:read")
async def list_documents(db: Db) -> list[DocumentOut]:
    return [DocumentOut.model_validate(found) for found in await db.scalars(select(Document).order_by(Document.id))]


@router.get("/documents/export")
@requires("documents:read")
async def export_documents(request: Request) -> StreamingResponse:
    sessions: async_sessionmaker[AsyncSession] = request.app.state.sessions

    async def lines() -> AsyncIterator[str]:
        yield "company,title\n"
        async with sessions() as db:
            async for tenant, title in await db.stream(select(Document.tenant_id, Document.title)):
                yield f"{tenant},{title}\n"

    return StreamingResponse(lines(), media_type="text/csv")


@router.get("/documents/{document_id}")
@requires("documents:read")
async def read_document(document_id: int, db: Db) -> DocumentOut:
    document = await db.get(Document, document_id)
    if document is None:
        raise HTTPException(404, "No such document.")
    return DocumentOut.model_validate(document)


@router.post("/documents", status_code=201)
@requires("documents:write")
async def add_document(new: DocumentIn, db: Db, later: BackgroundTasks, request: Request) -> DocumentOut:
    if new.folder_id is not None and await db.get(Folder, new.folder_id) is None:
        raise HTTPException(422, "No such folder.")
    document = Document(**new.model_dump(), created_by=current_actor().id)
    db.add(document)
    await db.commit()
    later.add_task(_welcome, request.app.state.sessions, document.id)
    return DocumentOut.model_validate(document)


async def _welcome(sessions: async_sessionmaker[AsyncSession], document_id: int) -> None:
    """Background work runs as whom it was asked for, in the same company."""
    async with sessions() as db, db.begin():
        db.add(Comment(document_id=document_id, text="Welcome!", created_by=current_identity().subject.id))


@router.get("/documents/{document_id}/comments")
@requires("documents:read")
async def list_comments(document_id: int, db: Db) -> list[str]:
    found = await db.scalars(select(Comment.text).where(Comment.document_id == document_id).order_by(Comment.id))
    return list(found)


@router.get("/folders")
@requires("documents:read")
def list_folders(db: SyncDb) -> list[FolderOut]:
    return [FolderOut.model_validate(found) for found in db.scalars(select(Folder).order_by(Folder.id))]


@router.get("/reports/documents-per-company")
@requires("documents:read")
async def documents_per_company(db: Db) -> dict[str, int]:
    """Count documents by company. The author forgot to ask whose: the answer has one company all the same."""
    rows = await db.execute(select(Document.tenant_id, func.count()).group_by(Document.tenant_id))
    return dict(rows.tuples().all())


@router.get("/reports/raw")
@requires("documents:read")
async def raw_report(db: Db) -> list[str]:
    """Ask in raw SQL, which nobody can scope: refused."""
    return list((await db.execute(text("SELECT title FROM documents"))).scalars())


@router.get("/whoami")
async def whoami() -> dict[str, object]:
    identity = current_identity()
    return {
        "tenant": current_tenant().id,
        "subject": identity.subject.id,
        "actor": identity.actor.id,
        "type": identity.actor.type,
        "scopes": sorted(identity.scopes),
        "chain": [party.id for party in identity.chain],
    }


@router.websocket("/live")
async def live(websocket: WebSocket) -> None:
    """Answer each message with the number of documents that the caller's company has."""
    sessions: async_sessionmaker[AsyncSession] = websocket.app.state.sessions
    await websocket.accept()
    async for _ in websocket.iter_text():
        async with sessions() as db:
            count = await db.scalar(select(func.count()).select_from(Document))
        await websocket.send_json({"tenant": current_tenant().id, "documents": count})


@router.delete("/documents/{document_id}", status_code=204)
@requires("documents:write")
async def delete_document(document_id: int, db: Db) -> Response:
    document = await db.get(Document, document_id)
    if document is None:
        raise HTTPException(404, "No such document.")
    await db.delete(document)
    await db.commit()
    return Response(status_code=204)
