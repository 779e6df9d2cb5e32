-- name: register_channel :one Channel
-- The channel is there; one that is known stays as it is.
-- $1 kind        text
-- $2 external_id text
INSERT INTO channels AS c (kind, external_id) VALUES ($1, $2)
ON CONFLICT (kind, external_id) DO UPDATE SET kind = c.kind
RETURNING id, kind, external_id, active, quiet_ms, most;

-- name: list_channels :many Channel
-- All channels.
SELECT c.id, c.kind, c.external_id, c.active, c.quiet_ms, c.most FROM channels c ORDER BY c.id;

-- name: open_conversation :opt Opened
-- The conversation with this peer is open, and its user known with the name of this visit: each found or made, whoever
-- makes them at the same moment. No row: there is no such channel, it is switched off, or nobody can be this peer.
-- $1 channel_id int8
-- $2 peer       text
-- $3 name       text  -- empty: as it was
-- $4 username   text
-- $5 language   text  -- as the channel has it, for who has chosen none; empty: unknown
-- $6 at_s       int8  -- Unix seconds at which it was written, where an old message opens nothing (WhatsApp); null: now
WITH channel AS (
    SELECT c.id, c.kind, CASE WHEN c.kind <> 'whatsapp' AND $2 ~ '^[1-9][0-9]{0,17}$' THEN $2::text::bigint END AS number,
           CASE WHEN c.kind = 'whatsapp' AND $2 ~ '^[0-9]{5,20}$' THEN $2::text END AS phone,
           CASE WHEN length($5) BETWEEN 2 AND 16 THEN $5 END AS language
      FROM channels c WHERE c.id = $1 AND c.active),
by_telegram AS (
    INSERT INTO users AS u (telegram_id, name, username, language)
    SELECT c.number, left($3, 200), nullif(left($4, 64), ''), coalesce(c.language, 'en') FROM channel c
     WHERE c.kind = 'telegram' AND c.number IS NOT NULL
    ON CONFLICT (telegram_id) DO UPDATE
       SET name = coalesce(nullif(excluded.name, ''), u.name), username = excluded.username, seen_at = now(), blocked_at = NULL,
           language = coalesce(u.chosen_language, (SELECT c.language FROM channel c), u.language)
    RETURNING id, role, language),
by_whatsapp AS (
    INSERT INTO users AS u (whatsapp, name, language)
    SELECT c.phone, left($3, 200), coalesce(c.language, 'en') FROM channel c WHERE c.phone IS NOT NULL
    ON CONFLICT (whatsapp) DO UPDATE  -- who began with "Hi" may write in their own language later
       SET name = coalesce(nullif(excluded.name, ''), u.name), seen_at = now(),
           language = CASE u.language WHEN 'en' THEN excluded.language ELSE u.language END
    RETURNING id, role, language),
who AS (
    SELECT * FROM by_telegram UNION ALL SELECT * FROM by_whatsapp UNION ALL
    SELECT u.id, u.role, coalesce(u.chosen_language, c.language, u.language)
      FROM channel c JOIN users u ON u.id = c.number WHERE c.kind = 'app'),
was AS (SELECT k.heard_at FROM conversations k WHERE k.channel_id = $1 AND k.peer = $2),
opened AS (
    INSERT INTO conversations AS k (channel_id, peer, user_id, heard_at)
    SELECT c.id, $2, w.id, CASE c.kind WHEN 'whatsapp' THEN least(now(), to_timestamp($6::bigint)) ELSE now() END
      FROM channel c CROSS JOIN who w
    ON CONFLICT (channel_id, peer) DO UPDATE
       SET heard_at = greatest(k.heard_at, excluded.heard_at),
           opened_at = CASE WHEN excluded.heard_at > k.heard_at + interval '6 hours' THEN now() ELSE k.opened_at END
    RETURNING id, channel_id, peer)
SELECT o.id, o.channel_id, c.kind, o.peer, w.id AS user_id, w.role, w.language,
       (SELECT heard_at FROM was) AS heard_before
  FROM opened o CROSS JOIN who w CROSS JOIN channel c;

-- name: note_turn :opt Noted
-- The turn is over without an answer: it was a duplicate, or is the bot's own affair (whose reply is claimed with it).
-- No row: it was there before, and its claim was not given up.
-- $1 turn_id         uuid
-- $2 conversation_id int8
-- $3 state           text  -- duplicate, noted
-- $4 question        text
INSERT INTO turns AS t (id, conversation_id, state, question, answered_at, sending_at)
VALUES ($1, $2, $3, $4, now(), CASE $3 WHEN 'noted' THEN now() END)
ON CONFLICT (id) DO UPDATE SET sending_at = now() WHERE t.state = 'noted' AND $3 = 'noted' AND t.sending_at IS NULL
RETURNING id;

-- name: claim_reply :opt Claimed
-- A decided answer that nobody has sent is claimed for sending, with those of its offers that hold at this moment. In
-- the Mini App, which asks for it, again and again.
-- $1 turn_id uuid
WITH offered AS (  -- as in close_turn
    SELECT o.n, o.value
      FROM (SELECT n, value, (value ->> 'product_id')::bigint AS product_id, (value ->> 'quantity')::int AS quantity,
                   (value ->> 'price_minor')::bigint AS price_minor
              FROM turns k CROSS JOIN LATERAL jsonb_array_elements(k.offers) WITH ORDINALITY j (value, n) WHERE k.id = $1) o
     CROSS JOIN LATERAL (
           SELECT count(*) AS things, count(a.stock_item_id) AS units, min(a.final_price_minor) AS first_minor,
                  sum(a.final_price_minor) AS sum_minor
             FROM (SELECT s.stock_item_id, s.final_price_minor FROM available_stock_with_discounts s
                    WHERE s.product_id = o.product_id AND s.currency = o.value ->> 'currency'
                    ORDER BY s.item_discount_bp DESC, s.received_at, s.stock_item_id LIMIT o.quantity) a) v
     WHERE v.things > v.units AND v.first_minor * o.quantity = o.price_minor OR v.units >= o.quantity
       AND v.sum_minor = o.price_minor)
UPDATE turns t SET sending_at = now()
  FROM conversations c JOIN channels h ON h.id = c.channel_id JOIN users u ON u.id = c.user_id
 WHERE t.id = $1 AND t.answer <> '' AND c.id = t.conversation_id AND (t.sending_at IS NULL OR h.kind = 'app')
RETURNING t.state, t.answer, t.answered_by AS by,
          coalesce((SELECT jsonb_agg(o.value ORDER BY o.n) FROM offered o), '[]')::text AS offers, h.kind, c.peer, c.user_id,
          c.id AS conversation_id, u.language;

-- name: release_reply :opt Noted
-- The answer is nobody's to send again: whoever had claimed it knows that nothing left.
-- $1 turn_id uuid
UPDATE turns SET sending_at = NULL WHERE id = $1 AND sent_at IS NULL RETURNING id;

-- name: mark_sent :opt Noted
-- The answer has been sent.
-- $1 turn_id uuid
UPDATE turns SET sent_at = now() WHERE id = $1 AND sent_at IS NULL RETURNING id;

-- name: show_latest :opt Latest
-- The last lines of this peer's conversation, the oldest first, by column, and whether a human has it.
-- $1 kind        text
-- $2 external_id text  -- of the channel
-- $3 peer        text
-- $4 size        int8
SELECT c.escalated_at IS NOT NULL AS escalated, l.ids, l.roles, l.texts, l.ats
  FROM channels h JOIN conversations c ON c.channel_id = h.id AND c.peer = $3
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(m.id ORDER BY m.id), '{}') AS ids, coalesce(array_agg(m.role ORDER BY m.id), '{}') AS roles,
              coalesce(array_agg(m.text ORDER BY m.id), '{}') AS texts, coalesce(array_agg(m.at ORDER BY m.id), '{}') AS ats
         FROM (SELECT k.* FROM messages k WHERE k.conversation_id = c.id ORDER BY k.at DESC, k.id DESC LIMIT $4) m) l
 WHERE h.kind = $1 AND h.external_id = $2;
