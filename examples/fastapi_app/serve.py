"""Serve a part of the example: ``python -m examples.fastapi_app.serve documents``.

The services run with uvicorn, the worker with Celery.

A listening socket can be handed over by its file descriptor, so that whoever starts the service knows the port
before it runs.
"""

import argparse
import socket
from importlib import import_module

import uvicorn

from examples.fastapi_app.settings import Settings

_MODULES = {"documents": "app", "billing": "billing", "ledger": "ledger", "worker": "jobs"}


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve a part of the example on 127.0.0.1.")
    parser.add_argument("service", choices=sorted(_MODULES))
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 finds a free one")
    parser.add_argument("--fd", type=int, help="file descriptor of a listening socket to use instead of a port")
    parser.add_argument("--log-level", default="info", choices=["error", "warning", "info", "debug"])
    options = parser.parse_args()
    settings = Settings.from_environment()
    # Each process loads what it runs, and no more.
    module = import_module(f"examples.fastapi_app.{_MODULES[options.service]}")
    if options.service == "worker":
        module.create_celery(settings).worker_main(["worker", "--pool=solo", f"--loglevel={options.log_level}"])
        return
    config = uvicorn.Config(
        module.create_app(settings), host="127.0.0.1", port=options.port, log_level=options.log_level
    )
    sockets = [socket.socket(fileno=options.fd)] if options.fd is not None else None
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
