"""THE map of every Redis key: its pattern, type, lifetime and owner. Nothing else spells a key.

Every key carries its hash tag, so that each script's keys share one cluster slot, and every key expires
unless its row says permanent. Any of them may vanish at any moment (DESIGN law 1).
"""

from typing import NamedTuple


class Key(NamedTuple):
    """One row of the map."""

    pattern: str  # `{s:<seller>}free`: literal braces are the hash tag, <…> is filled in
    type: str
    ttl: str
    owner: str
    meaning: str


KEYS = (
    Key("{s:<seller>}free", "hash", "30 s", "stock", "product id -> units free to sell, less the live holds"),
    Key(
        "{s:<seller>}held",
        "hash",
        "60 s",
        "stock",
        "hold id -> its cart, while a checkout is between Redis and Postgres; empty: sold, as a repeat said",
    ),
    Key("{s:<seller>}due", "zset", "60 s", "stock", "hold id by the moment (ms) at which it lapses"),
    Key("{s:<seller>}sold", "hash", "60 s", "stock", "product id -> units sold since the moment in its field `epoch`"),
    Key(
        "{s:<seller>}doubt",
        "hash",
        "60 s",
        "stock",
        "product id whose counter may be too low -> from when (ms) it is counted anew",
    ),
    Key("{limits}<policy>:<subject>", "string", "24 h", "limits", "what is missing from a bucket, and since when"),
    Key("{u:<user>}once:<key>", "hash", "24 h", "once", "one Idempotency-Key: who works on it, or its reply"),
    Key("{e:<provider>:<event>}", "string", "60 s", "inbox", "there, once Postgres holds this webhook's event"),
    Key(
        "{catalog}generation", "hash", "24 h", "catalog", "the moments (us) of the last change and of the one before it"
    ),
    Key("{catalog}search:<digest>", "hash", "300 s", "catalog", "an encoded page and its generation; empty pages 30 s"),
    Key("{catalog}product:<id>", "hash", "30 s", "catalog", "an encoded product, 5 s; nothing: there is none"),
    Key("{catalog}assortment", "hash", "300 s", "catalog", "the consultant's encoded products and their generation"),
    Key("{catalog}lease:<entry>", "string", "2 s", "catalog", "who loads this entry from Postgres now"),
    Key("{rank}board:<board>:<currency>", "zset", "1 h", "leaderboard", "user id by minor units saved; 0 by -1: built"),
    Key(
        "{rank}building:<board>:<currency>",
        "hash",
        "10 s",
        "leaderboard",
        "who builds it, and what was saved meanwhile",
    ),
    Key("{rank}stage:<board>:<currency>", "zset", "10 s", "leaderboard", "what its builder has read so far"),
    Key(
        "{u:<user>}events",
        "stream",
        "24 h",
        "events",
        "one user's last 1,000 events; also the channel of its listeners",
    ),
    Key("{u:<user>}event:<event>", "string", "1 h", "events", "there, once this event is in the user's stream"),
    Key(
        "{ticket:<digest>}", "string", "30 s", "events", "the session that may open one stream of events by this ticket"
    ),
    Key("{circuits}<peer>", "hash", "1 h", "circuits", "whether an outside party is called, and its last failures"),
    Key("{telegram}chat:<chat>", "string", "24 h", "pace", "the moment (us) up to which a chat's places are taken"),
    Key("{telegram}bot", "string", "24 h", "pace", "the same for all that the bot sends"),
    Key("{telegram}broadcast", "string", "2 s", "pace", "the same for broadcasts"),
    Key("{telegram}flood", "string", "24 h", "pace", "until when, and which chat Telegram asked to wait"),
    Key("{c:<shard>}talks", "hash", "24 h", "buffers", "conversation -> what waits of it, and its batch under way"),
    Key("{c:<shard>}heard", "hash", "24 h", "buffers", "number and conversation -> a message that is not answered yet"),
    Key("{c:<shard>}due", "zset", "24 h", "buffers", "conversation by the moment (ms) at which a worker looks at it"),
    Key("{c:<shard>}seen:<channel>:<message>", "string", "24 h", "buffers", "there, once this message has been heard"),
    Key("{arq}queue", "zset", "permanent", "queue", "arq's queue: job id by the moment (ms) from which it may start"),
    Key("{arq}bell", "list", "60 s", "queue", "job ids that a waiting worker starts at once"),
    Key("{arq}queue:health-check", "string", "31 s", "queue", "arq's own sign of life"),
    Key("arq:job:<job>", "string", "1 h", "queue", "arq's job: function and arguments"),
    Key("arq:in-progress:<job>", "string", "130 s", "queue", "arq's mark of a running job"),
    Key("arq:retry:<job>", "string", "88400 s", "queue", "arq's count of tries; deleted when the job ends"),
)

ARQ_QUEUE = "{arq}queue"
ARQ_BELL = "{arq}bell"
CATALOG_GENERATION = "{catalog}generation"
CATALOG_ASSORTMENT = "{catalog}assortment"
TELEGRAM_BOT = "{telegram}bot"
TELEGRAM_BROADCAST = "{telegram}broadcast"
TELEGRAM_FLOOD = "{telegram}flood"


def stock_free(seller_id: int) -> str:
    return f"{{s:{seller_id}}}free"


def stock_held(seller_id: int) -> str:
    return f"{{s:{seller_id}}}held"


def stock_due(seller_id: int) -> str:
    return f"{{s:{seller_id}}}due"


def stock_sold(seller_id: int) -> str:
    return f"{{s:{seller_id}}}sold"


def stock_doubt(seller_id: int) -> str:
    return f"{{s:{seller_id}}}doubt"


def catalog_search(digest: str) -> str:
    return f"{{catalog}}search:{digest}"


def catalog_product(product_id: int) -> str:
    return f"{{catalog}}product:{product_id}"


def catalog_lease(entry: str) -> str:
    return f"{{catalog}}lease:{entry.removeprefix('{catalog}')}"


def rank_board(board: str, currency: str) -> str:
    return f"{{rank}}board:{board}:{currency}"


def rank_building(board: str, currency: str) -> str:
    return f"{{rank}}building:{board}:{currency}"


def rank_stage(board: str, currency: str) -> str:
    return f"{{rank}}stage:{board}:{currency}"


def limit(policy: str, subject: str) -> str:
    return f"{{limits}}{policy}:{subject}"


def once(user_id: int, key_digest: str) -> str:
    return f"{{u:{user_id}}}once:{key_digest}"


def event(provider: str, event_key: str) -> str:
    return f"{{e:{provider}:{event_key}}}"


def events(user_id: int) -> str:
    return f"{{u:{user_id}}}events"


def event_mark(user_id: int, event_id: str) -> str:
    return f"{{u:{user_id}}}event:{event_id}"


def event_ticket(digest: str) -> str:
    return f"{{ticket:{digest}}}"


def circuit(peer: str) -> str:
    return f"{{circuits}}{peer}"


def telegram_chat(chat_id: int) -> str:
    return f"{{telegram}}chat:{chat_id}"


def buffer_talks(shard: int) -> str:
    return f"{{c:{shard}}}talks"


def buffer_heard(shard: int) -> str:
    return f"{{c:{shard}}}heard"


def buffer_due(shard: int) -> str:
    return f"{{c:{shard}}}due"


def buffer_seen(shard: int, channel_id: int, external_id: str) -> str:
    return f"{{c:{shard}}}seen:{channel_id}:{external_id}"


def arq_job_id(outbox_id: int, turn: int) -> str:
    """A job id that carries arq's hash tag, because arq builds `arq:job:<job id>` itself."""
    return f"{{arq}}{outbox_id}:{turn}"
