from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "tests.django.web"
    label = "web"
