"""The same shelves as in the other example, and two people of the staff."""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission

from examples.django_app.documents.models import Comment, Document, Folder, Language, Membership
from examples.fastapi_app.database import COMPANIES
from tenantguard import bind, service_identity

STAFF = {"ann": ["acme"], "sam": ["acme", "globex"]}
"""Who works for which companies; their passwords are their names. This is a demo."""

ADMINISTERED = ["document", "folder", "comment"]


def add_sample_data() -> None:
    """Fill each company's shelf once, as a service of that company: even this code can't mix them up."""
    Language.objects.get_or_create(code="en", defaults={"name": "English"})
    Language.objects.get_or_create(code="de", defaults={"name": "German"})
    for company, folders in COMPANIES.items():
        with bind(service_identity("sample-data", tenant=company)):
            if not Folder.objects.exists():
                _fill(folders)
    users: Any = get_user_model()._default_manager
    for name, companies in STAFF.items():
        if not users.filter(username=name).exists():
            user = users.create_user(name, password=name, is_staff=True)
            theirs = Permission.objects.filter(
                content_type__app_label="documents", content_type__model__in=ADMINISTERED
            )
            user.user_permissions.set(theirs)
            Membership.objects.bulk_create([Membership(user=user, company=company) for company in companies])


def _fill(folders: dict[str, list[str]]) -> None:
    for name, titles in folders.items():
        folder = Folder.objects.create(name=name)
        for title in titles:
            body = f"{title}, first draft. The rest is still to be written."
            document = Document.objects.create(title=title, body=body, created_by="sample-data", folder=folder)
            Comment.objects.create(document=document, text="Looks good.", created_by="sample-data")
