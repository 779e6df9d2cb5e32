"""What the bot says, in the language of whom it tells; a file for each language."""

from app.bot import words_en, words_ru, words_uk
from app.channels.telegram.texts import language

WORDS = {"en": words_en.WORDS, "ru": words_ru.WORDS, "uk": words_uk.WORDS}
NAMES = {"en": "English", "ru": "Русский", "uk": "Українська"}  # each as its speakers call it


def say(code: str, key: str, **facts: object) -> str:
    """The words of this key; facts are put in as they are, whatever they hold."""
    return WORDS[language(code)][key].format(**facts)
