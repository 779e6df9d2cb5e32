"""The Mini App's line: whatever becomes of the hint, the message is there."""

from uuid import uuid4

import pytest

from app.channels.app.line import AppLine
from app.errors import RedisDown
from app.infra.messenger import Sent


@pytest.mark.parametrize("away", [False, True])
async def test_a_message_is_there_whoever_hears_of_it(away: bool) -> None:
    told: list[int] = []

    async def hint(user_id: int) -> None:
        told.append(user_id)
        if away:
            raise RedisDown

    line = AppLine(hint)
    assert await line.say("7", "en", "Hello") is Sent.DELIVERED
    draft = line.draft("8", uuid4())
    draft.show("Hel")
    assert await draft.finish("en", "Hello") is Sent.DELIVERED
    await draft.close()
    assert told == [7, 8]
