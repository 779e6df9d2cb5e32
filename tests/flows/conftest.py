"""A consultant that says what a test wrote down."""

import pytest

from app.flows import consult
from tests.flows.talking import Consultant


@pytest.fixture
def consultant(monkeypatch: pytest.MonkeyPatch) -> Consultant:
    scripted = Consultant()
    monkeypatch.setattr(consult, "consult", scripted)
    return scripted
