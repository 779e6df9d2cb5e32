"""A shelf in a database of the test's own."""

import pytest

from app.infra.sql import Postgres
from tests.sql.shelf import Shelf


@pytest.fixture
async def shelf(pg: Postgres) -> Shelf:
    return await Shelf.opened(pg)
