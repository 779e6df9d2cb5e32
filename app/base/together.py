"""Concurrent reads, all settled: each has its own default and its own logged failure (E4, E5, A4)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, overload

import msgspec
import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


class Required:
    """Stands where a default would: the read must succeed."""


REQUIRED = Required()


class Read(msgspec.Struct, Generic[T], frozen=True):
    """One member of `together`: how to read it, and what stands in when it fails or is not wanted.

    A read without a default is required. `when=False` skips the call and yields the default.
    """

    name: str
    call: Callable[[], Awaitable[T]]
    default: T | Required = REQUIRED
    when: bool = True

    def __post_init__(self) -> None:
        if not self.when and isinstance(self.default, Required):
            raise ValueError(f"read {self.name!r} is conditional and has no default")


@overload
async def together(a: Read[A], /, *, parallel: bool = True) -> tuple[A]: ...
@overload
async def together(a: Read[A], b: Read[B], /, *, parallel: bool = True) -> tuple[A, B]: ...
@overload
async def together(a: Read[A], b: Read[B], c: Read[C], /, *, parallel: bool = True) -> tuple[A, B, C]: ...
@overload
async def together(
    a: Read[A], b: Read[B], c: Read[C], d: Read[D], /, *, parallel: bool = True
) -> tuple[A, B, C, D]: ...
@overload
async def together(
    a: Read[A], b: Read[B], c: Read[C], d: Read[D], e: Read[E], /, *, parallel: bool = True
) -> tuple[A, B, C, D, E]: ...
async def together(*reads: Read[Any], parallel: bool = True) -> tuple[Any, ...]:
    """The results in the order of the reads, side by side or (`parallel=False`) one after another, the same either way.

    Every read is waited for, also when another fails; then the first required failure, in the order of the
    reads, is raised. A failed read with a default is logged with its name. Cancelling this cancels every read.

    Raises: whatever the first failed required read raised.
    """
    if parallel:
        outcomes = await asyncio.gather(*(_settle(read) for read in reads))
    else:
        outcomes = [await _settle(read) for read in reads]
    for read, outcome in zip(reads, outcomes, strict=True):
        if isinstance(outcome, _Failed):
            if isinstance(read.default, Required):
                raise outcome.error
            log.warning("read failed, default used", read=read.name, error=repr(outcome.error))
    return tuple(
        read.default if isinstance(outcome, _Failed) else outcome for read, outcome in zip(reads, outcomes, strict=True)
    )


class _Failed:
    """A settled failure: an exception kept as a value, so that one read's failure never cancels another."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def _settle(read: Read[Any]) -> Any:
    if not read.when:
        return read.default
    try:
        return await read.call()
    except Exception as error:  # every failure is settled here, by design
        return _Failed(error)
