"""Team: what the shop's people are told when a conversation is theirs, and what is said to whoever waits for them."""

from app.base import prose
from app.channels.telegram.texts import MAX_LENGTH, language

MOST_OF_A_LINE = 600  # units of one message of the conversation

_REVIEW = {
    "en": "A human is looking at this and will answer here.",
    "ru": "Этим занимается человек, он ответит здесь.",
    "uk": "Цим займається людина, вона відповість тут.",
}
_GONE = {
    "en": "While I was writing, something of this was sold or changed its price, so it has no button. Ask me again.",
    "ru": "Пока я писал, что-то из этого раскупили или изменилась цена, поэтому кнопки нет. Спросите ещё раз.",
    "uk": "Поки я писав, щось із цього розкупили або змінилася ціна, тому кнопки немає. Запитайте ще раз.",
}
_ALERT = {
    "en": "A human is needed: {reason}.\n{who}, conversation {id}\n{link}",
    "ru": "Нужен человек: {reason}.\n{who}, разговор {id}\n{link}",
    "uk": "Потрібна людина: {reason}.\n{who}, розмова {id}\n{link}",
}
_REASONS = {
    "user_request": {"en": "asked for", "ru": "просят позвать", "uk": "просять покликати"},
    "repeated_question": {
        "en": "the same question three times",
        "ru": "один вопрос три раза",
        "uk": "одне питання тричі",
    },
    "low_confidence": {"en": "weak answers", "ru": "слабые ответы", "uk": "слабкі відповіді"},
    "sensitive_topic": {
        "en": "complaint, money or law",
        "ru": "жалоба, деньги или право",
        "uk": "скарга, гроші або право",
    },
}
_ROLES = {
    "user": {"en": "User", "ru": "Пользователь", "uk": "Користувач"},
    "assistant": {"en": "Machine", "ru": "Машина", "uk": "Машина"},
    "agent": {"en": "Agent", "ru": "Сотрудник", "uk": "Працівник"},
    "system": {"en": "System", "ru": "Система", "uk": "Система"},
}


def review(code: str) -> str:
    """While a human has the conversation."""
    return _REVIEW[language(code)]


def gone(code: str) -> str:
    """Under an answer, one of whose offers does not hold any more."""
    return _GONE[language(code)]


def alert(code: str, reason: str, who: str, conversation_id: int, link: str, lines: list[tuple[str, str]]) -> str:
    """The team's message: why, who, where, and the last lines (role, text), the oldest first; the newest are kept."""
    lang = language(code)
    head = _ALERT[lang].format(reason=_REASONS[reason][lang], who=prose.one_line(who), id=conversation_id, link=link)
    kept: list[str] = []
    room = MAX_LENGTH - prose.units(head) - 1
    for role, text in reversed(lines):
        line = f"{_ROLES[role][lang]}: {prose.cut(_indented(text.strip()), MOST_OF_A_LINE)}"
        room -= prose.units(line) + 1
        if room < 0:
            break
        kept.insert(0, line)
    return "\n".join([head, "", *kept]).rstrip()


def _indented(text: str) -> str:
    """No line of what somebody wrote looks like somebody else's."""
    return "\n  ".join(text.splitlines())


def link(kind: str, peer: str, user_id: int) -> str:
    """Where an agent finds whoever wrote."""
    match kind:
        case "telegram":
            return f"tg://user?id={peer}"
        case "whatsapp":
            return f"https://wa.me/{peer}"
    return f"Mini App, user {user_id}"
