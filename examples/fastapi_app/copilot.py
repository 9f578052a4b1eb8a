"""The copilot: endpoints that work for a user, and call a second service in her name, at once or later.

Whoever calls it, the person or an agent that acts for her, the same barrier holds: it reads her company's documents
alone, and the billing service learns for whom it was called.
"""

from anyio import to_thread
from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import select

from examples.fastapi_app.documents import Db
from examples.fastapi_app.jobs import REPORT
from examples.fastapi_app.models import Document
from tenantguard import requires

router = APIRouter(prefix="/copilot")


class Summary(BaseModel):
    lines: list[str]
    usage: dict[str, object]


@router.post("/summary")
@requires("documents:read")
async def summarise(request: Request, db: Db) -> Summary:
    """Give the first sentence of each document, and what the billing service says of the company's plan."""
    documents = (await db.scalars(select(Document).order_by(Document.id))).all()
    response = await request.app.state.billing.get("/usage")
    if response.status_code != 200:
        raise HTTPException(502, "The billing service did not answer.")
    return Summary(
        lines=[f"{document.title}: {document.body.split('.')[0]}." for document in documents], usage=response.json()
    )


@router.post("/report", status_code=202)
@requires("documents:read")
async def report_later(request: Request, db: Db) -> dict[str, int]:
    """Put a report off: a worker writes it when this request is long gone, in the name of whoever asked for it."""
    document = (await db.scalars(select(Document).order_by(Document.id).limit(1))).one()
    await to_thread.run_sync(request.app.state.celery.tasks[REPORT].delay, document.id)
    return {"document_id": document.id}
