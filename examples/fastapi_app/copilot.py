"""The copilot: an endpoint that works for a user, and calls a second service in her name.

Whoever calls it, the person or an agent that acts for her, the same barrier holds: it reads her company's documents
alone, and the billing service learns for whom it was called.
"""

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel
from sqlalchemy import select

from examples.fastapi_app.documents import Db
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
