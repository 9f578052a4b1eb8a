"""The app of the documents."""

from django.apps import AppConfig


class DocumentsConfig(AppConfig):
    name = "examples.django_app.documents"
    label = "documents"
