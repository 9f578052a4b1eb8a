"""The tests' models in the admin, registered as any project does it: with Django's own classes."""

from django.contrib import admin

from tests.django.web.models import Comment, Document, Folder, Language


class CommentInline(admin.TabularInline):
    model = Comment
    extra = 1


@admin.register(Document)
class DocumentAdmin(admin.ModelAdmin):
    list_display = ["title", "folder"]
    list_filter = ["folder"]
    search_fields = ["title"]
    autocomplete_fields = ["folder"]
    inlines = [CommentInline]


@admin.register(Folder)
class FolderAdmin(admin.ModelAdmin):
    search_fields = ["name"]
    ordering = ["id"]


admin.site.register(Language)
