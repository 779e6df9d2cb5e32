-- name: know_turns :many Known
-- Of each of these turns: what became of it, which of its messages are stored already with another turn, and what its
-- user has written in the last five minutes, but for what was given up or whose answer may be lost: who has none may ask
-- again in the same words.
-- $1 turn_ids         uuid[]
-- $2 conversation_ids int8[]  -- one per turn
-- $3 places           int8[]  -- for each message: the place of its turn, from 1
-- $4 external_ids     text[]
SELECT t.state, coalesce(t.answer, '') AS answer, coalesce(t.answered_by, '') AS by, t.sent_at IS NOT NULL AS sent,
       ARRAY(SELECT e.external_id FROM unnest($3::bigint[], $4::text[]) AS e (place, external_id)
              WHERE e.place = w.n AND (SELECT m.turn_id FROM messages m WHERE m.conversation_id = w.conversation_id
                AND m.external_id = e.external_id) <> w.turn_id) AS external_ids,
       ARRAY(SELECT r.text FROM messages r JOIN turns k ON k.id = r.turn_id
              WHERE r.conversation_id = w.conversation_id AND r.at > now() - interval '5 minutes' AND r.role = 'user'
                AND r.turn_id <> w.turn_id AND (greatest(k.created_at, k.sending_at) > now() - interval '30 seconds'
                     OR k.state <> 'open' AND (k.sending_at IS NULL OR k.sent_at IS NOT NULL))
              ORDER BY r.at DESC, r.id DESC LIMIT 50) AS texts
  FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS w (turn_id, conversation_id, n)
  LEFT JOIN LATERAL (SELECT k.* FROM turns k WHERE k.id = w.turn_id LIMIT 1) t ON true
 ORDER BY w.n;

-- name: read_histories :many History
-- The last ten lines of each conversation, the oldest first, without those of its present turn.
-- $1 turn_ids         uuid[]
-- $2 conversation_ids int8[]  -- one per turn
SELECT h.roles, h.texts, h.ats
  FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS w (turn_id, conversation_id, n)
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(l.role ORDER BY l.at, l.id), '{}') AS roles,
              coalesce(array_agg(l.text ORDER BY l.at, l.id), '{}') AS texts, coalesce(array_agg(l.at ORDER BY l.at, l.id), '{}') AS ats
         FROM (SELECT m.* FROM messages m WHERE m.conversation_id = w.conversation_id AND m.turn_id <> w.turn_id
                ORDER BY m.at DESC, m.id DESC LIMIT 10) l) h
 ORDER BY w.n;

-- name: read_settings :many Settings
-- When these channels hand over to a human.
-- $1 channel_ids int8[]
SELECT c.escalation_enabled AS enabled, c.escalation_threshold AS threshold, c.escalation_keywords AS keywords
  FROM unnest($1::bigint[]) WITH ORDINALITY AS w (channel_id, n)
 CROSS JOIN LATERAL (SELECT k.* FROM channels k WHERE k.id = w.channel_id LIMIT 1) c
 ORDER BY w.n;

-- name: read_escalations :many Escalation
-- Since when a human has each of these conversations.
-- $1 conversation_ids int8[]
SELECT c.escalated_at AS at
  FROM unnest($1::bigint[]) WITH ORDINALITY AS w (conversation_id, n)
 CROSS JOIN LATERAL (SELECT k.* FROM conversations k WHERE k.id = w.conversation_id LIMIT 1) c
 ORDER BY w.n;

-- name: read_interactions :many Interactions
-- The last ten turns of each conversation since it was opened, the newest first, without its present one.
-- $1 turn_ids         uuid[]
-- $2 conversation_ids int8[]  -- one per turn
SELECT r.questions, r.qualities
  FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS w (turn_id, conversation_id, n)
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(l.question ORDER BY l.created_at DESC, l.id), '{}') AS questions,
              coalesce(array_agg(l.quality::float8 ORDER BY l.created_at DESC, l.id), '{}') AS qualities
         FROM (SELECT t.* FROM turns t
                WHERE t.conversation_id = w.conversation_id AND t.id <> w.turn_id AND t.state <> 'noted' AND t.created_at >=
                      (SELECT c.opened_at FROM conversations c WHERE c.id = w.conversation_id)
                ORDER BY t.created_at DESC LIMIT 10) l) r
 ORDER BY w.n;

-- name: store_turn :opt Stored
-- The turn is there, to be answered, with its user's messages; what is stored already stays as it is.
-- $1 turn_id         uuid
-- $2 conversation_id int8
-- $3 question        text
-- $4 external_ids    text[]  -- empty: none
-- $5 texts           text[]
WITH turn AS (
    INSERT INTO turns (id, conversation_id, state, question) VALUES ($1, $2, 'open', $3) ON CONFLICT (id) DO NOTHING
    RETURNING id)
INSERT INTO messages (conversation_id, turn_id, role, text, external_id)
SELECT $2, t.id, 'user', m.text, nullif(m.external_id, '')
  FROM turn t CROSS JOIN unnest($4::text[], $5::text[]) WITH ORDINALITY AS m (external_id, text, n) ORDER BY m.n
ON CONFLICT (conversation_id, external_id) DO NOTHING
RETURNING id;

-- name: drop_turn :opt Dropped
-- An open turn is a duplicate: another, which began at the same moment, has all its messages. No row: it is not open.
-- $1 turn_id uuid
UPDATE turns SET state = 'duplicate', answered_at = now() WHERE id = $1 AND state = 'open'
RETURNING id;

-- name: close_turn :opt Closed
-- The turn is decided, once: its answer is stored and claimed for sending, with the offers that hold at this moment; the
-- channel's webhook is owed its events, the team its alert. In a conversation that a human has meanwhile nothing is said
-- but that, every five minutes. No row: somebody else has decided it, or it is not a human's any more.
-- $1 turn_id         uuid
-- $2 conversation_id int8
-- $3 state           text    -- answered, escalated, silent
-- $4 reason          text    -- of an escalation; else empty
-- $5 answer          text
-- $6 answered_by     text
-- $7 quality         float8  -- may be null
-- $8 offers          jsonb   -- product_id, quantity, price_minor, currency, and more
-- $9 review          text    -- what is said while a human has it
-- $10 gone           text    -- what is added when an offer does not hold
WITH offered AS (  -- as quote_products reckons: the units that an order would claim
    SELECT o.n, o.value, coalesce(v.things > v.units AND v.first_minor * o.quantity = o.price_minor
           OR v.units >= o.quantity AND v.sum_minor = o.price_minor, false) AS holds
      FROM (SELECT n, value, (value ->> 'product_id')::bigint AS product_id, (value ->> 'quantity')::int AS quantity,
                   (value ->> 'price_minor')::bigint AS price_minor FROM jsonb_array_elements($8) WITH ORDINALITY j (value, n)) o
     CROSS JOIN LATERAL (
           SELECT count(*) AS things, count(a.stock_item_id) AS units, min(a.final_price_minor) AS first_minor,
                  sum(a.final_price_minor) AS sum_minor
             FROM (SELECT s.stock_item_id, s.final_price_minor FROM available_stock_with_discounts s
                    WHERE s.product_id = o.product_id AND s.currency = o.value ->> 'currency'
                    ORDER BY s.item_discount_bp DESC, s.received_at, s.stock_item_id LIMIT o.quantity) a) v),
talk AS (
    SELECT c.id, c.channel_id, c.user_id, CASE WHEN c.escalated_at IS NULL THEN $3 ELSE 'silent' END AS state,
           coalesce(c.reviewing_at < now() - interval '5 minutes', true) AS due
      FROM conversations c WHERE c.id = $2 AND ($3 <> 'silent' OR c.escalated_at IS NOT NULL) FOR UPDATE),
said AS (
    SELECT k.*, CASE WHEN k.state <> 'silent' THEN $5 || CASE WHEN EXISTS (SELECT FROM offered WHERE NOT holds)
           THEN E'\n\n' || $10 ELSE '' END WHEN k.due THEN $9 ELSE '' END AS text FROM talk k),
turn AS (
    UPDATE turns t SET state = s.state, answer = s.text, answered_at = now(), sending_at = CASE WHEN s.text <> '' THEN now() END,
           answered_by = CASE WHEN s.text = '' THEN '' WHEN s.state = 'silent' THEN 'texts' ELSE $6 END,
           quality = CASE WHEN s.state <> 'silent' THEN $7::float8 END, offers = coalesce((
               SELECT jsonb_agg(o.value ORDER BY o.n) FROM offered o WHERE o.holds AND s.state <> 'silent'), '[]')
      FROM said s WHERE t.id = $1 AND t.state = 'open'
    RETURNING t.id, t.conversation_id, s.channel_id, s.user_id, t.state, t.question, t.answer, t.answered_by, t.offers),
stored AS (
    INSERT INTO messages (conversation_id, turn_id, role, text)
    SELECT t.conversation_id, t.id, 'assistant', t.answer FROM turn t WHERE t.answer <> ''),
moved AS (
    UPDATE conversations c SET reviewing_at = now(), escalated_at = CASE t.state WHEN 'escalated' THEN now() ELSE c.escalated_at END,
           escalation = CASE t.state WHEN 'escalated' THEN $4 ELSE c.escalation END
      FROM turn t WHERE c.id = t.conversation_id AND (t.state = 'escalated' OR t.state = 'silent' AND t.answer <> '')),
alarm AS (
    INSERT INTO outbox (kind, key, payload) SELECT 'escalate', t.id, jsonb_build_object('conversation_id', t.conversation_id)
      FROM turn t WHERE t.state = 'escalated' RETURNING id),
told AS (  -- of texts only so much that an event of any script stays below 20 kB
    INSERT INTO outbox (kind, key, payload)
    SELECT 'hook', v.name || ':' || e.id, jsonb_build_object('endpoint_id', e.id, 'event_id', v.name, 'event',
           jsonb_build_object('type', v.type, 'timestamp', now(), 'data', jsonb_build_object('conversation_id',
               t.conversation_id, 'turn_id', t.id, 'channel', c.kind, 'user_id', t.user_id, 'state', t.state, 'question',
               left(t.question, 1500), 'answer', left(t.answer, 1500), 'answered_by', t.answered_by, 'reason', $4)))
      FROM turn t JOIN channels c ON c.id = t.channel_id
      JOIN endpoints e ON e.id = c.endpoint_id AND e.deleted_at IS NULL AND e.disabled_at IS NULL
     CROSS JOIN LATERAL (VALUES
           ('conversation.message', 'turn_' || translate(t.id::text, '-', '')),
           ('conversation.escalated', 'turn_' || translate(t.id::text, '-', '') || '_escalated')) v (type, name)
     WHERE (v.type = 'conversation.message' OR t.state = 'escalated') AND (e.types = '{}' OR v.type = ANY (e.types))
    RETURNING id)
SELECT t.state, t.answer, t.answered_by AS by, t.offers::text AS offers,
       ARRAY(SELECT id FROM alarm UNION ALL SELECT id FROM told) AS owed FROM turn t;
