"""A visit: one command or button, by whom, and what is said to it."""

from uuid import UUID

import msgspec

from app.base import prose
from app.bot import texts
from app.domain.buffers import Heard
from app.domain.conversations import Opened
from app.infra.messenger import Button, Buttons
from app.shop import Shop


class Reply(msgspec.Struct, frozen=True):
    """What is said, with the buttons under it."""

    text: str
    buttons: Buttons = ()
    instead: bool = False  # in the place of the message whose button was pressed
    claimed: bool = False  # to be sent, by whoever wrote it
    claim: UUID | None = None  # under which it is sent once, when several updates have one answer; None: the turn


class Visit(msgspec.Struct, frozen=True):
    """Who came, where; handlers are given it, and answer with a Reply."""

    shop: Shop
    opened: Opened
    turn_id: UUID
    chat_id: int
    name: str
    heard: Heard

    @property
    def language(self) -> str:
        return self.opened.language

    @property
    def is_admin(self) -> bool:
        """By the settings of this very moment: who is taken off them is none with the next update."""
        return self.chat_id in self.shop.deps.settings.admin_ids()

    def words(self, key: str, **facts: object) -> str:
        return texts.say(self.language, key, **facts)

    def say(self, key: str, *, buttons: Buttons = (), instead: bool = False, **facts: object) -> Reply:
        return Reply(self.words(key, **facts), buttons, instead)

    def shop_button(self) -> Button:
        """Opens the shop: as a Mini App, which Telegram opens by https alone."""
        url, label = self.shop.deps.settings.public_url, self.words("open_shop")
        return Button(label, app=url) if url.startswith("https://") else Button(label, url=url)


def label(text: str) -> str:
    """A button's label: one line, as long as a phone shows."""
    return prose.one_line(text, 60)
