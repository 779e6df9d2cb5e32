-- The language that a user has chosen in the bot; `language`, which everything is told in, follows Telegram only without
-- one: whoever enters or writes sets `language = coalesce(chosen_language, <as the channel has it>)`.

ALTER TABLE users ADD COLUMN chosen_language text CHECK (chosen_language IN ('en', 'ru', 'uk'));
