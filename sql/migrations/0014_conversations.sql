-- Conversations: channels that buyers write to us by, what was said, and when a human has it.

CREATE TABLE channels (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind                 text NOT NULL CHECK (kind IN ('telegram', 'whatsapp', 'app')),
    external_id          text NOT NULL CHECK (length(external_id) BETWEEN 1 AND 64),  -- bot id, phone number id, 'app'
    name                 text NOT NULL DEFAULT '' CHECK (length(name) <= 100),
    active               boolean NOT NULL DEFAULT true,
    quiet_ms             integer NOT NULL DEFAULT 8000 CHECK (quiet_ms BETWEEN 0 AND 60000),  -- after the first message
    most                 integer NOT NULL DEFAULT 5 CHECK (most BETWEEN 1 AND 10),            -- messages that wait no longer
    escalation_enabled   boolean NOT NULL DEFAULT true,
    escalation_threshold integer NOT NULL DEFAULT 3 CHECK (escalation_threshold BETWEEN 1 AND 5),
    escalation_keywords  text[] NOT NULL DEFAULT '{}',                                -- beside those of the language
    endpoint_id          uuid REFERENCES endpoints,                                   -- which hears what is said here
    version              bigint NOT NULL DEFAULT 1,
    created_at           timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, external_id)
);
INSERT INTO channels (kind, external_id, name) VALUES ('app', 'app', 'Mini App');

CREATE TABLE conversations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel_id   bigint NOT NULL REFERENCES channels,
    peer         text NOT NULL CHECK (length(peer) BETWEEN 1 AND 64),  -- chat id, phone, user id of the Mini App
    user_id      bigint NOT NULL REFERENCES users,
    opened_at    timestamptz NOT NULL DEFAULT now(),                   -- anew after six silent hours, and when handed back
    heard_at     timestamptz NOT NULL DEFAULT now(),                   -- when its user last wrote
    escalated_at timestamptz,                                          -- a human has it; null: the machine
    escalation   text CHECK (escalation IN ('user_request', 'repeated_question', 'low_confidence', 'sensitive_topic')),
    reviewing_at timestamptz,                                          -- when it was last said that a human has it
    UNIQUE (channel_id, peer),
    CHECK ((escalated_at IS NULL) = (escalation IS NULL))
);
CREATE INDEX conversations_of_user ON conversations (user_id);
CREATE INDEX conversations_escalated ON conversations (escalated_at, id) WHERE escalated_at IS NOT NULL;

-- One batch of messages, and what became of it.
CREATE TABLE turns (
    id              uuid PRIMARY KEY,
    conversation_id bigint NOT NULL REFERENCES conversations,
    -- open: stored, being answered · answered · duplicate: said before, not stored · silent: a human has the
    -- conversation · escalated: it was handed over · noted: no words for the consultant (a command, a button, an agent)
    state           text NOT NULL CHECK (state IN ('open', 'answered', 'duplicate', 'silent', 'escalated', 'noted')),
    question        text NOT NULL,
    answer          text NOT NULL DEFAULT '',
    answered_by     text NOT NULL DEFAULT '' CHECK (answered_by IN ('', 'model', 'search', 'texts', 'agent')),
    offers          jsonb NOT NULL DEFAULT '[]',                       -- that held when it was closed; shown with the answer
    quality         real CHECK (quality BETWEEN 0 AND 1),
    created_at      timestamptz NOT NULL DEFAULT now(),
    answered_at     timestamptz,
    sending_at      timestamptz,                                       -- the reply may be on the wire: never sent again
    sent_at         timestamptz                                        -- and it is there
);
CREATE INDEX turns_of_conversation ON turns (conversation_id, created_at DESC);

CREATE TABLE messages (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id bigint NOT NULL REFERENCES conversations,
    turn_id         uuid NOT NULL REFERENCES turns,
    role            text NOT NULL CHECK (role IN ('user', 'assistant', 'agent', 'system')),
    text            text NOT NULL,
    user_id         bigint REFERENCES users,                             -- the agent
    external_id     text CHECK (length(external_id) BETWEEN 1 AND 200),  -- the channel's own id; null: ours
    at              timestamptz NOT NULL DEFAULT now(),
    UNIQUE (conversation_id, external_id),
    CHECK ((role = 'agent') = (user_id IS NOT NULL))
);
CREATE INDEX messages_of_conversation ON messages (conversation_id, at DESC, id DESC);

ALTER TABLE changes
    ADD COLUMN channel_id bigint REFERENCES channels,
    ADD CONSTRAINT changes_of_channel CHECK ((noun IN ('channel', 'conversation')) = (channel_id IS NOT NULL));
