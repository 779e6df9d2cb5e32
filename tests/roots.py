"""The world's root certificates are read once in a process, not for each HTTP client: 30 ms, six times in a `World`."""

import functools
import ssl
from collections.abc import Callable
from typing import Any


def read_once() -> Callable[..., ssl.SSLContext]:
    """Does what `ssl.create_default_context` does, whose answer for one file of roots is always the same."""
    read = ssl.create_default_context
    known = functools.cache(lambda file: read(cafile=file))

    def context(*args: Any, **given: Any) -> ssl.SSLContext:
        return read(*args, **given) if args or given.keys() != {"cafile"} else known(given["cafile"])

    return context
