"""The URLs of the service, which are those of the other example, and the admin."""

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView
from rest_framework.routers import SimpleRouter

from examples.django_app.documents import views

router = SimpleRouter(trailing_slash=False)
router.register("documents", views.DocumentViewSet)
router.register("folders", views.FolderViewSet)

urlpatterns = [
    path("admin/", admin.site.urls),
    path("health", views.health),
    path("whoami", views.whoami),
    path("copilot/summary", views.summarise),
    path("copilot/report", views.report_later),
    path("reports/documents-per-company", views.documents_per_company),
    path("reports/raw", views.raw_report),
    path("export.csv", views.export),
    path("schema", SpectacularAPIView.as_view()),
    path("", include(router.urls)),
]
