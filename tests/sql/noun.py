"""What the nouns name: their statements, found by importing each of them."""

import importlib
import pkgutil
from typing import Any

from app import domain
from app.infra.sql import ROOT, Query, Statement, queries

# What the servers of the tests cannot prepare, and what they lack for it.
NEEDS = {"catalog/resembling_products": "pg_trgm, which the embedded Postgres does not have"}


def statements() -> list[tuple[str, Statement[Any]]]:
    """Each statement constant of the nouns with the noun whose module holds it."""
    found = []
    for module in pkgutil.iter_modules(domain.__path__):
        constants = vars(importlib.import_module(f"{domain.__name__}.{module.name}")).values()
        found += [(module.name, constant) for constant in constants if isinstance(constant, Statement)]
    return found


def written() -> dict[str, Query]:
    """Each statement of sql/queries by its path `noun/name`."""
    nouns = sorted(path.stem for path in (ROOT / "queries").glob("*.sql"))
    return {f"{noun}/{name}": query for noun in nouns for name, query in queries(noun).items()}
