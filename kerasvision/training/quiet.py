"""Silence for native code that prints past Python's logging."""

import contextlib
import os
import sys


@contextlib.contextmanager
def quiet():
    """Drops what is written to stdout and stderr, from C++ as well, while the block runs."""
    streams = (sys.stdout, sys.stderr)
    copies = [os.dup(number) for number in (1, 2)]
    with open(os.devnull, "w") as nothing:
        for stream, number in zip(streams, (1, 2)):
            stream.flush()
            os.dup2(nothing.fileno(), number)
        try:
            yield
        finally:
            for stream, number, copy in zip(streams, (1, 2), copies):
                stream.flush()
                os.dup2(copy, number)
                os.close(copy)
