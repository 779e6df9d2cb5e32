"""Somebody in a private chat with the bot: what they write goes the product's whole way from update to message."""

from typing import Any

import msgspec

from app.base import clock
from app.base.ids import new_id
from app.bot.dispatch import Bot
from app.channels.telegram import updates
from app.domain import conversations
from app.domain.buffers import Batch
from app.infra.messenger import Buttons
from app.sandbox.telegram_wire import Say
from tests.world import World

BOT = Bot()


class Chat:
    """`user` says who it is, as `Say` has it."""

    def __init__(self, world: World, chat_id: int = 1001, **user: Any) -> None:
        self.world, self.chat_id, self.user = world, chat_id, user

    async def writes(self, text: str, **more: Any) -> None:
        await self.feed(await self.batched(text, **more))

    async def batched(self, text: str, **more: Any) -> Batch:
        """What is written, to be fed."""
        return self.batch(Say(chat_id=self.chat_id, text=text, **self.user, **more), await self.channel())

    async def presses(self, data: str) -> None:
        await self.feed(await self.pressing(data))

    async def pressing(self, data: str) -> Batch:
        """The batch of a pressed button, to be fed."""
        return self.batch(Say(chat_id=self.chat_id, data=data, **self.user), await self.channel())

    async def forges(self, data: str) -> None:
        """A button that no message of the bot has ever had."""
        user = {"id": self.chat_id, "is_bot": False, "first_name": "M"}
        old = {"message_id": 1, "date": 0, "chat": {"id": self.chat_id, "type": "private"}}
        query = {"id": "1", "from": user, "chat_instance": "1", "data": data, "message": old}
        update = self._update({"callback_query": query})
        await self.feed(self._batch(update, await self.channel()))

    async def feed(self, batch: Batch) -> None:
        await BOT.feed(self.world.shop, batch)

    def batch(self, say: Say, channel_id: int) -> Batch:
        api = self.world.telegram
        return self._batch(self._update(api.pressed(say) if say.data else {"message": api.written(say)}), channel_id)

    async def told(self, text: str, **more: Any) -> str:
        """The one message that answers this."""
        before = len(self.texts())
        await self.writes(text, **more)
        (answer,) = self.texts()[before:]
        return answer

    async def tells(self, data: str) -> str:
        """The one message that answers this button."""
        before = len(self.texts())
        await self.presses(data)
        (answer,) = self.texts()[before:]
        return answer

    async def tells_forged(self, data: str) -> str:
        """The one message that answers this, which no button of the bot has ever sent."""
        before = len(self.texts())
        await self.forges(data)
        (answer,) = self.texts()[before:]
        return answer

    def texts(self) -> list[str]:
        return [message["text"] for message in self.world.telegram.sent_to(self.chat_id)]

    def buttons(self) -> list[dict[str, Any]]:
        """Those under the last message, row after row."""
        last = self.world.telegram.sent_to(self.chat_id)[-1]
        return [button for row in last.get("reply_markup", {}).get("inline_keyboard", []) for button in row]

    def data(self) -> list[str]:
        return [button["callback_data"] for button in self.buttons() if "callback_data" in button]

    async def shows(self, text: str, buttons: Buttons) -> None:
        """The bot has said this, with these buttons."""
        assert self.world.shop.deps.messenger
        await self.world.shop.deps.messenger.post(self.chat_id, text, buttons)

    async def user_id(self) -> int:
        return int(await self.world.scalar("SELECT id FROM users WHERE telegram_id = $1", self.chat_id))

    async def channel(self) -> int:
        return (await conversations.register(self.world.pg, "telegram", "1234567890")).id

    def _update(self, of: dict[str, Any]) -> bytes:
        self.world.telegram.last_update_id += 1
        return msgspec.json.encode({"update_id": self.world.telegram.last_update_id} | of)

    def _batch(self, update: bytes, channel_id: int) -> Batch:
        told = updates.read(update, clock.unix_s())
        assert told
        return Batch(id=new_id(), channel_id=channel_id, peer=told.peer, tries=1, heard=[told.heard])
