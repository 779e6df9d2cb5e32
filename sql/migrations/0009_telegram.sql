-- Telegram: who cannot be told any more, and messages to everybody.

ALTER TABLE users ADD COLUMN blocked_at timestamptz;            -- has stopped the bot, or never started it; null: can be told

CREATE TABLE broadcasts (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    texts          jsonb NOT NULL CHECK (texts ?& ARRAY['en', 'ru']),  -- by language
    audience       text NOT NULL CHECK (audience IN ('all', 'buyers')),
    state          text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'done', 'cancelled')),
    cursor_user_id bigint NOT NULL DEFAULT 0,                   -- users up to this id had their turn
    sent           bigint NOT NULL DEFAULT 0,
    blocked        bigint NOT NULL DEFAULT 0,
    failed         bigint NOT NULL DEFAULT 0,                   -- Telegram would not take it, or asked for too long a wait
    created_by     bigint NOT NULL REFERENCES users,
    created_at     timestamptz NOT NULL DEFAULT now(),
    ended_at       timestamptz,
    CHECK ((state IN ('done', 'cancelled')) = (ended_at IS NOT NULL))
);
-- The same twice at a time is a slip of the finger.
CREATE UNIQUE INDEX broadcasts_under_way ON broadcasts (audience, md5(texts::text)) WHERE state IN ('running', 'paused');
