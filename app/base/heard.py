"""What somebody wrote, as its channel brought it: the form in which channels hand it to the buffers."""

import msgspec


class Heard(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message or button as its channel brought it."""

    external_id: str  # the channel's own id of it, which tells repeats
    at_s: int  # Unix seconds
    name: str = ""
    username: str = ""
    language: str = ""  # as the channel has it; empty: unknown
    text: str = ""  # words for the consultant; empty: for the bot's own routines, which read `raw`
    raw: str = ""  # the channel's JSON of what is no words: a command, a button, a photo
