"""What the tests with real processes share."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from app.infra.embedded import Servers
from tests.e2e.stage import Stage
from tests.e2e.traps import Zygote

OpenStage = Callable[[], AbstractAsyncContextManager[Stage]]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    with Zygote.running() as running:
        yield running


@pytest.fixture
def open_stage(zygote: Zygote, servers: Servers, template: str) -> OpenStage:
    """Opens a stage, as often as it is called."""
    return lambda: Stage.opened(zygote, servers, template)
