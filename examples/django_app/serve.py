"""Serve the project with uvicorn, or run its worker: ``python -m examples.django_app.serve documents``.

The database is brought up to date before.

A listening socket can be handed over by its file descriptor, so that whoever starts the service knows the port
before it runs.
"""

import argparse
import os
import socket

import uvicorn


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the Django example on 127.0.0.1.")
    parser.add_argument("service", choices=["documents", "worker"])
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 finds a free one")
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket to use instead of a port")
    parser.add_argument("--log-level", default="info", choices=["error", "warning", "info", "debug"])
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_app.settings")

    from examples.django_app.asgi import application  # the settings are read here

    if options.service == "worker":
        from examples.django_app.documents.tasks import celery

        celery().worker_main(["worker", "--pool=solo", f"--loglevel={options.log_level}"])
        return
    prepare()
    config = uvicorn.Config(
        application, host="127.0.0.1", port=options.port, log_level=options.log_level, lifespan="off"
    )
    sockets = [socket.socket(fileno=options.fd)] if options.fd is not None else None
    uvicorn.Server(config).run(sockets=sockets)


def prepare() -> None:
    """Create what is missing in the database, and the sample data. ``migrate`` runs in a system context by itself."""
    from django.core.management import call_command

    from examples.django_app.sample_data import add_sample_data

    call_command("migrate", verbosity=0)
    add_sample_data()


if __name__ == "__main__":
    main()
