-- Users who write by WhatsApp have a phone instead of a Telegram id.

ALTER TABLE users
    ALTER COLUMN telegram_id DROP NOT NULL,
    ADD COLUMN whatsapp text UNIQUE CHECK (whatsapp ~ '^[0-9]{5,20}$'),
    ADD CHECK (telegram_id IS NOT NULL OR whatsapp IS NOT NULL);
