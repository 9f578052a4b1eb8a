"""Serve the app or the billing service with uvicorn: ``python -m examples.fastapi_app.serve documents``.

A listening socket can be handed over by its file descriptor, so that whoever starts the service knows the port
before it runs.
"""

import argparse
import socket

import uvicorn

from examples.fastapi_app import app, billing
from examples.fastapi_app.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a part of the example on 127.0.0.1.")
    parser.add_argument("service", choices=["documents", "billing"])
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 finds a free one")
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket to use instead of a port")
    parser.add_argument("--log-level", default="info", choices=["error", "warning", "info", "debug"])
    options = parser.parse_args()
    create = app.create_app if options.service == "documents" else billing.create_app
    config = uvicorn.Config(
        create(Settings.from_environment()), host="127.0.0.1", port=options.port, log_level=options.log_level
    )
    sockets = [socket.socket(fileno=options.fd)] if options.fd is not None else None
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
