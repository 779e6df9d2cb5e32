-- name: create_broadcast :one Entered
-- A message to everybody is under way, with its job and its line of the trail; or the word says why not. A draft becomes
-- one broadcast, whatever is pressed under it, and however often: cancelled, it is there too, so that nothing else becomes of it.
-- $1 user_id  int8
-- $2 texts    jsonb  -- by language
-- $3 audience text
-- $4 draft    uuid   -- may be null
-- $5 state    text   -- running, cancelled
WITH who AS (SELECT FROM staff s WHERE s.user_id = $1 AND s.role = 'admin'),
made AS (
    INSERT INTO broadcasts (texts, audience, created_by, draft, state, ended_at)
    SELECT $2, $3, $1, $4, $5, CASE $5 WHEN 'cancelled' THEN now() END FROM who
    ON CONFLICT DO NOTHING  -- the draft has become one, or the same is under way
    RETURNING id, state),
noted AS (
    INSERT INTO changes (user_id, role, noun, what)
    SELECT $1, 'admin', 'broadcast', jsonb_build_object(
           'broadcast', m.id, 'state', jsonb_build_object('old', NULL, 'new', m.state),
           'audience', jsonb_build_object('old', NULL, 'new', $3), 'texts', jsonb_build_object('old', NULL, 'new', $2))
      FROM made m),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'broadcast', m.id::text, jsonb_build_object('broadcast_id', m.id) FROM made m WHERE m.state = 'running'
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' WHEN EXISTS (SELECT FROM made) THEN 'created'
            ELSE 'taken' END AS word,
       (SELECT m.id FROM made m) AS id, (SELECT o.id FROM owed o) AS outbox_id;

-- name: find_drafted :opt Drafted
-- What became of a draft. No row: nothing yet.
-- $1 draft uuid
SELECT b.id, b.state, b.sent FROM broadcasts b WHERE b.draft = $1;

-- name: move_broadcast :one Moved
-- A broadcast is in this state, with its line of the trail, or the word says why not. One that goes on has its job again.
-- $1 user_id      int8
-- $2 broadcast_id int8
-- $3 state        text  -- running, paused or cancelled
WITH who AS (SELECT FROM staff s WHERE s.user_id = $1 AND s.role = 'admin'),
target AS (SELECT b.id, b.state FROM broadcasts b, who WHERE b.id = $2 FOR UPDATE OF b),
judged AS (
    SELECT t.id, t.state, CASE WHEN t.state = $3 THEN 'unchanged' WHEN t.state IN ('done', 'cancelled') THEN 'ended'
           ELSE 'moved' END AS word FROM target t),
moved AS (
    UPDATE broadcasts b SET state = $3, ended_at = CASE $3 WHEN 'cancelled' THEN now() END
      FROM judged j WHERE b.id = j.id AND j.word = 'moved'
    RETURNING b.id),
-- Whatever its job's state was a moment ago: an attempt that is at it goes on, one that has just ended begins anew.
woken AS (
    UPDATE outbox o SET state = 'owed', run_at = now(), attempts = 0, orphaned = 0, done_at = NULL, died_at = NULL
      FROM moved m WHERE $3 = 'running' AND o.kind = 'broadcast' AND o.key = m.id::text
    RETURNING o.id, (extract(epoch FROM o.run_at - o.created_at) * 1000)::int8 AS turn),
noted AS (
    INSERT INTO changes (user_id, role, noun, what)
    SELECT $1, 'admin', 'broadcast', jsonb_build_object(
           'broadcast', j.id, 'state', jsonb_build_object('old', j.state, 'new', $3))
      FROM moved m JOIN judged j USING (id))
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' ELSE coalesce(j.word, 'missing') END AS word,
       j.state AS was, (SELECT w.id FROM woken w) AS outbox_id, (SELECT w.turn FROM woken w) AS turn
  FROM (VALUES (1)) one LEFT JOIN judged j ON true;

-- name: list_broadcasts :many Broadcast
-- Broadcasts, the newest first, for admins.
-- $1 user_id int8
-- $2 id      int8  -- 0: all
-- $3 before  int8  -- the last of the page before; only older ones
-- $4 size    int8
SELECT b.id, b.texts::text AS texts, b.audience, b.state, b.sent, b.blocked, b.failed, b.created_by, b.created_at, b.ended_at
  FROM staff s JOIN broadcasts b ON s.role = 'admin'
 WHERE s.user_id = $1 AND b.id < $3 AND ($2::bigint = 0 OR b.id = $2)
 ORDER BY b.id DESC
 LIMIT $4;

-- name: find_broadcast :opt Work
-- What a turn of its job begins with.
-- $1 broadcast_id int8
SELECT b.id, b.texts::text AS texts, b.state, b.cursor_user_id FROM broadcasts b WHERE b.id = $1;

-- name: list_recipients :many Recipient
-- Who is next: whoever was in Telegram here when it was written, and has not stopped the bot; to buyers: and has paid something.
-- $1 broadcast_id int8
-- $2 after        int8  -- the last user of those before
-- $3 size         int8
SELECT u.id, u.telegram_id, u.language FROM broadcasts b JOIN users u ON u.created_at <= b.created_at
 WHERE b.id = $1 AND u.id > $2 AND u.blocked_at IS NULL AND u.telegram_id IS NOT NULL
   -- One look at the index for each, and not EXISTS, for which all orders may be read.
   AND (b.audience = 'all' OR (SELECT o.id FROM orders o WHERE o.user_id = u.id AND o.paid_at IS NOT NULL LIMIT 1) IS NOT NULL)
 ORDER BY u.id
 LIMIT $3;

-- name: count_told :opt Told
-- A user had their turn and is counted, and the state of the broadcast now; no row when the job is no longer this attempt's.
-- $1 outbox_id    int8
-- $2 attempt_id   uuid
-- $3 broadcast_id int8
-- $4 user_id      int8
-- $5 outcome      text  -- sent, blocked or failed
UPDATE broadcasts b
   SET cursor_user_id = $4, sent = b.sent + ($5 = 'sent')::int, blocked = b.blocked + ($5 = 'blocked')::int,
       failed = b.failed + ($5 = 'failed')::int
 WHERE b.id = $3 AND b.cursor_user_id < $4
   AND EXISTS (SELECT FROM outbox o WHERE o.id = $1 AND o.attempt_id = $2 AND o.state = 'owed')
RETURNING b.state;

-- name: end_turn :opt Turned
-- The turn is over: the job is free again, or done with a broadcast that is over or does not run any more; no row when
-- the job is no longer this attempt's.
-- $1 outbox_id    int8
-- $2 attempt_id   uuid
-- $3 broadcast_id int8
-- $4 all_told     bool
WITH now_is AS (SELECT b.id, b.state FROM broadcasts b WHERE b.id = $3 FOR UPDATE),
turned AS (
    UPDATE outbox o
       SET state = CASE WHEN n.state = 'running' AND NOT $4 THEN 'owed' ELSE 'done' END,
           done_at = CASE WHEN n.state = 'running' AND NOT $4 THEN NULL ELSE now() END,
           run_at = now(), attempts = 0, orphaned = 0, attempt_id = NULL, lease_until = NULL
      FROM now_is n WHERE o.id = $1 AND o.attempt_id = $2 AND o.state = 'owed'
    RETURNING o.state, (extract(epoch FROM o.run_at - o.created_at) * 1000)::int8 AS turn),
ended AS (
    UPDATE broadcasts b SET state = 'done', ended_at = now()
      FROM now_is n, turned t WHERE b.id = n.id AND n.state = 'running' AND t.state = 'done')
SELECT t.state, t.turn FROM turned t;
