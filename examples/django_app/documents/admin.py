"""The admin, registered as in any project: the site shows one company at a time."""

from typing import Any

from django.contrib import admin

from examples.django_app.documents.models import Comment, Document, Folder, Language, Membership
from tenantguard import current_actor


class CommentInline(admin.TabularInline):  # type: ignore[type-arg]  # it is not generic at run time
    model = Comment
    extra = 0


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("title", "folder", "created_by", "created_at")
    list_filter = ("folder", "language")
    search_fields = ("title",)
    autocomplete_fields = ("folder",)
    inlines = (CommentInline,)

    def save_model(self, request: Any, obj: Any, form: Any, change: bool) -> None:
        if not change:
            obj.created_by = current_actor().id
        super().save_model(request, obj, form, change)


@admin.register(Folder)
class FolderAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    search_fields = ("name",)
    ordering = ("name",)


admin.site.register(Language)
admin.site.register(Membership)
