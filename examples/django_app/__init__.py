"""The document service of `examples.fastapi_app`, as a Django project: admin, REST framework, async views."""
