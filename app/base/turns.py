"""Turns: within one process, those who want the same thing have it one after another."""

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """A line for each key, in the order of coming; a line that nobody stands in is forgotten."""

    def __init__(self) -> None:
        self.lines: WeakValueDictionary[object, asyncio.Lock] = WeakValueDictionary()

    def of(self, key: object) -> asyncio.Lock:
        """`async with turns.of(key):` is this caller's turn, and until then its wait for it."""
        return self.lines.setdefault(key, asyncio.Lock())
