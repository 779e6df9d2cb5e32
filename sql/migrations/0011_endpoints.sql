-- Endpoints: where sellers' own systems hear what becomes of their orders; and signed calls that come in from outside.

CREATE TABLE endpoints (
    id            uuid PRIMARY KEY,
    seller_id     bigint NOT NULL REFERENCES sellers,
    url           text NOT NULL CHECK (length(url) BETWEEN 1 AND 2048),
    types         text[] NOT NULL DEFAULT '{}',                 -- of events that it wants; empty: all
    sealed        bytea,                                        -- the secret that signs; null once deleted
    former        bytea,                                        -- the one before it, which signs too for a while
    former_until  timestamptz,
    heard_at      timestamptz,                                  -- the last success, to the minute
    failing_since timestamptz,                                  -- nothing but failures since then
    disabled_at   timestamptz,
    -- staff: switched off by its people · gone: it answered 410 · failing: nothing but failures for days
    disabled_why  text CHECK (disabled_why IN ('staff', 'gone', 'failing')),
    version       bigint NOT NULL DEFAULT 1,
    created_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz,                                  -- the row stays for its trail
    CHECK ((deleted_at IS NULL) = (sealed IS NOT NULL)),
    CHECK ((former IS NULL) = (former_until IS NULL)),
    CHECK ((disabled_at IS NULL) = (disabled_why IS NULL))
);
CREATE INDEX endpoints_of_seller ON endpoints (seller_id) WHERE deleted_at IS NULL;

ALTER TABLE changes
    ADD COLUMN endpoint_id uuid REFERENCES endpoints,
    ADD CONSTRAINT changes_of_webhook CHECK ((noun = 'webhook') = (endpoint_id IS NOT NULL));

-- What an endpoint was sent, the newest first.
CREATE INDEX outbox_calls ON outbox ((payload ->> 'endpoint_id'), id DESC) WHERE kind = 'hook';

-- Ids of signed calls that were heard: each counts once, for as long as its signature is good.
CREATE TABLE summons (
    id         text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 200),
    expires_at timestamptz NOT NULL
);
CREATE INDEX summons_past ON summons (expires_at);
