-- name: list_escalated :many Card
-- Conversations that a human has, the latest handed over first.
-- $1 before_us int8  -- the last one of the page before: its `at_us`
-- $2 before    int8  -- and its id
-- $3 size      int8
SELECT c.id, c.channel_id, h.kind, c.peer, c.user_id, u.name, c.heard_at, c.escalated_at, c.escalation,
       (extract(epoch FROM c.escalated_at) * 1000000)::int8 AS at_us
  FROM conversations c JOIN channels h ON h.id = c.channel_id JOIN users u ON u.id = c.user_id
 WHERE c.escalated_at IS NOT NULL AND (c.escalated_at, c.id) < (timestamptz 'epoch' + $1::int8 * interval '1 microsecond', $2)
 ORDER BY c.escalated_at DESC, c.id DESC
 LIMIT $3;

-- name: list_conversations :many Card
-- All conversations, the newest first.
-- $1 before int8  -- the last one of the page before
-- $2 size   int8
SELECT c.id, c.channel_id, h.kind, c.peer, c.user_id, u.name, c.heard_at, c.escalated_at, c.escalation, 0::int8 AS at_us
  FROM conversations c JOIN channels h ON h.id = c.channel_id JOIN users u ON u.id = c.user_id
 WHERE c.id < $1
 ORDER BY c.id DESC
 LIMIT $2;

-- name: get_conversation :opt Card
-- One conversation.
-- $1 conversation_id int8
SELECT c.id, c.channel_id, h.kind, c.peer, c.user_id, u.name, c.heard_at, c.escalated_at, c.escalation, 0::int8 AS at_us
  FROM conversations c JOIN channels h ON h.id = c.channel_id JOIN users u ON u.id = c.user_id
 WHERE c.id = $1;

-- name: list_messages :many Line
-- What was said in a conversation, the newest first; when what we said was sent, as far as that is known.
-- $1 conversation_id int8
-- $2 before          int8  -- the last one of the page before; 0: from the newest
-- $3 size            int8
SELECT m.id, m.turn_id, m.role, m.user_id, m.text, m.at, CASE WHEN m.role IN ('assistant', 'agent') THEN t.sent_at END AS sent_at
  FROM messages m JOIN turns t ON t.id = m.turn_id
 WHERE m.conversation_id = $1
   AND ($2::int8 = 0 OR (m.at, m.id) < (SELECT b.at, b.id FROM messages b WHERE b.id = $2 AND b.conversation_id = $1))
 ORDER BY m.at DESC, m.id DESC
 LIMIT $3;

-- name: find_alarm :opt Alarm
-- What the team is told of a conversation that a human should have: who, why, and the last ten lines, the oldest first.
-- No row: it was handed back meanwhile.
-- $1 conversation_id int8
SELECT c.id, h.kind, c.peer, c.user_id, u.name, coalesce(u.username, '') AS username, c.escalation AS reason, l.roles, l.texts,
       e.seller_id
  FROM conversations c JOIN channels h ON h.id = c.channel_id JOIN users u ON u.id = c.user_id
  LEFT JOIN endpoints e ON e.id = h.endpoint_id
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(m.role ORDER BY m.at, m.id), '{}') AS roles,
              coalesce(array_agg(m.text ORDER BY m.at, m.id), '{}') AS texts
         FROM (SELECT k.* FROM messages k WHERE k.conversation_id = c.id ORDER BY k.at DESC, k.id DESC LIMIT 10) m) l
 WHERE c.id = $1 AND c.escalated_at IS NOT NULL;

-- name: say_words :one Spoken
-- An agent's words are said in a conversation: stored, and owed to whoever wrote there and to the channel's webhook; or
-- the word says why not. The same id again says nothing new.
-- $1 user_id         int8
-- $2 conversation_id int8
-- $3 turn_id         uuid
-- $4 text            text
WITH who AS (SELECT s.user_id FROM staff s WHERE s.user_id = $1 AND s.role = 'admin'),
known AS (
    SELECT t.id, t.conversation_id = $2 AND t.answer = $4 AS same, m.id AS message_id, m.at
      FROM turns t JOIN messages m ON m.conversation_id = t.conversation_id AND m.turn_id = t.id WHERE t.id = $3),
talk AS (
    SELECT c.id, c.channel_id, c.user_id FROM conversations c CROSS JOIN who WHERE c.id = $2 AND NOT EXISTS (SELECT FROM known)),
turn AS (
    INSERT INTO turns (id, conversation_id, state, question, answer, answered_by, answered_at)
    SELECT $3, k.id, 'noted', '', $4, 'agent', now() FROM talk k
    RETURNING id, conversation_id),
said AS (
    INSERT INTO messages (conversation_id, turn_id, role, text, user_id)
    SELECT t.conversation_id, t.id, 'agent', $4, $1 FROM turn t
    RETURNING id, at),
owed AS (
    INSERT INTO outbox (kind, key, payload, aggregate)
    SELECT 'speak', t.id, jsonb_build_object('turn_id', t.id), 'speak:' || t.conversation_id FROM turn t
    RETURNING id),
told AS (  -- as in close_turn
    INSERT INTO outbox (kind, key, payload)
    SELECT 'hook', v.name || ':' || e.id, jsonb_build_object('endpoint_id', e.id, 'event_id', v.name, 'event',
           jsonb_build_object('type', v.type, 'timestamp', now(), 'data', jsonb_build_object('conversation_id', k.id,
               'turn_id', t.id, 'channel', c.kind, 'user_id', k.user_id, 'state', 'noted', 'question', '',
               'answer', left($4, 1500), 'answered_by', 'agent', 'reason', '')))
      FROM turn t CROSS JOIN talk k JOIN channels c ON c.id = k.channel_id
      JOIN endpoints e ON e.id = c.endpoint_id AND e.deleted_at IS NULL AND e.disabled_at IS NULL
     CROSS JOIN LATERAL (VALUES ('conversation.message', 'turn_' || translate(t.id::text, '-', ''))) v (type, name)
     WHERE e.types = '{}' OR v.type = ANY (e.types)
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' WHEN EXISTS (SELECT FROM turn) THEN 'said'
            WHEN k.same THEN 'repeated' WHEN k.id IS NOT NULL THEN 'other' ELSE 'missing' END AS word,
       coalesce(s.id, k.message_id) AS message_id, coalesce(s.at, k.at) AS at,
       ARRAY(SELECT id FROM owed UNION ALL SELECT id FROM told) AS owed
  FROM (VALUES (1)) one LEFT JOIN said s ON true LEFT JOIN known k ON true;

-- name: hand_back :opt Handed
-- The machine answers in this conversation again, on record; what was asked before does not count any more. No row: no
-- human had it, or this user is no admin.
-- $1 user_id         int8
-- $2 conversation_id int8
WITH was AS (
    SELECT c.id, c.channel_id, c.escalation, s.role FROM conversations c JOIN staff s ON s.user_id = $1 AND s.role = 'admin'
     WHERE c.id = $2 AND c.escalated_at IS NOT NULL FOR UPDATE OF c),
handed AS (
    UPDATE conversations c SET escalated_at = NULL, escalation = NULL, reviewing_at = NULL, opened_at = now()
      FROM was w WHERE c.id = w.id
    RETURNING c.id, w.channel_id, w.escalation, w.role),
noted AS (
    INSERT INTO changes (user_id, role, noun, channel_id, what)
    SELECT $1, h.role, 'conversation', h.channel_id, jsonb_build_object(
           'conversation_id', jsonb_build_object('old', h.id, 'new', h.id),
           'escalation', jsonb_build_object('old', h.escalation, 'new', NULL)) FROM handed h)
SELECT h.id FROM handed h;

-- name: list_instances :many Instance
-- All channels with their settings.
SELECT c.id, c.kind, c.external_id, c.name, c.active, c.quiet_ms, c.most, c.escalation_enabled, c.escalation_threshold,
       c.escalation_keywords, c.endpoint_id, c.version, c.created_at
  FROM channels c ORDER BY c.id;

-- name: change_channel :one Changed
-- The given fields of a channel are as given, with the audit line, or the word says why not.
-- $1 user_id    int8
-- $2 channel_id int8
-- $3 version    int8   -- the one that the caller has seen
-- $4 fields     jsonb  -- of its settings: only those to change
WITH who AS (SELECT s.role FROM staff s WHERE s.user_id = $1 AND s.role = 'admin'),
target AS (
    SELECT c.id, c.version, w.role, to_jsonb(c) - ARRAY['id', 'kind', 'external_id', 'version', 'created_at'] AS was
      FROM channels c CROSS JOIN who w WHERE c.id = $2 FOR UPDATE OF c),
judged AS (
    SELECT t.*, t.was || $4 AS will, CASE WHEN t.version <> $3 THEN 'stale' WHEN t.was = t.was || $4 THEN 'unchanged'
           WHEN $4 ->> 'endpoint_id' IS NOT NULL AND NOT EXISTS (
               SELECT FROM endpoints e WHERE e.id = ($4 ->> 'endpoint_id')::uuid AND e.deleted_at IS NULL) THEN 'no_webhook'
           ELSE 'changed' END AS word FROM target t),
changed AS (
    UPDATE channels c
       SET name = j.will ->> 'name', active = (j.will ->> 'active')::bool, quiet_ms = (j.will ->> 'quiet_ms')::int,
           most = (j.will ->> 'most')::int, escalation_enabled = (j.will ->> 'escalation_enabled')::bool,
           escalation_threshold = (j.will ->> 'escalation_threshold')::int,
           escalation_keywords = ARRAY(SELECT jsonb_array_elements_text(j.will -> 'escalation_keywords')),
           endpoint_id = (j.will ->> 'endpoint_id')::uuid, version = c.version + 1
      FROM judged j WHERE c.id = j.id AND j.word = 'changed'
    RETURNING c.id, c.version),
noted AS (
    INSERT INTO changes (user_id, role, noun, channel_id, what)
    SELECT $1, j.role, 'channel', c.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', j.was -> f.key, 'new', f.value))
             FROM jsonb_each(j.will) f WHERE j.was -> f.key IS DISTINCT FROM f.value)
      FROM changed c CROSS JOIN judged j)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' ELSE coalesce(j.word, 'missing') END AS word,
       coalesce((SELECT version FROM changed), j.version) AS version
  FROM (VALUES (1)) one LEFT JOIN judged j ON true;
