"""One process of the long run. It is no part of ``__main__``, which a spawned process can't import."""

import gc
import logging
from argparse import Namespace
from contextlib import ExitStack
from typing import Any, Final

from tests.orm.silo.databases import postgresql, sqlite
from tests.orm.silo.oracle import Oracle
from tests.orm.silo.programs import program
from tests.support.postgres_server import postgres_server

__all__ = ["run"]

_BATCH: Final = 25


def run(job: int, jobs: int, options: Namespace, results: Any) -> None:
    """Judge every ``jobs``-th program, and put the differences and counts into a queue."""
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        if options.database == "sqlite":
            databases = stack.enter_context(sqlite())
        else:
            databases = stack.enter_context(postgresql(stack.enter_context(postgres_server())))
        oracle = Oracle(databases)
        gc.freeze()  # so that the collector, which runs between programs, does not walk all modules each time
        done = 0
        for number in range(options.first + job, options.first + options.programs, jobs):
            difference = oracle.judge(program(number, options.database))
            done += 1
            if difference is not None:
                results.put(("different", number, str(oracle.smallest(difference))))
            if done == _BATCH:
                results.put(("done", done, ""))
                done = 0
        results.put(("done", done, ""))
        results.put(("end", oracle.statistics, ""))
