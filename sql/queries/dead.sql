-- name: list_dead :many Letter
-- Dead letters, the newest first.
-- $1 kind   text         -- empty: of any
-- $2 since  timestamptz  -- dead since then or later
-- $3 before int8         -- the last of the page before; only older ones
-- $4 size   int8
SELECT d.id, d.kind, d.key, d.aggregate, d.attempts, d.created_at, d.died_at, d.last_error FROM outbox d
 WHERE d.state = 'dead' AND d.id < $3 AND ($1 = '' OR d.kind = $1) AND d.died_at >= $2
 ORDER BY d.id DESC
 LIMIT $4;

-- name: get_dead :opt Opened
-- One dead letter with all that is known of it, also after it was dropped.
-- $1 outbox_id int8
SELECT d.id, d.kind, d.key, d.aggregate, d.state, d.payload::text AS payload, d.attempts, d.created_at, d.died_at,
       d.last_error, d.history
  FROM outbox d WHERE d.id = $1 AND d.state IN ('dead', 'dropped');

-- name: replay_dead :many Replayed
-- These dead letters are owed again as if nothing had been tried, on record; their story keeps the error. `turn` is for
-- the ring. A dry run changes nothing.
-- $1 ids     int8[]  -- empty: all
-- $2 kind    text    -- empty: of any
-- $3 user_id int8    -- 0: at the machine
-- $4 by      text
-- $5 size    int8
-- $6 dry_run bool
WITH chosen AS (
    SELECT d.id, d.attempts, d.last_error FROM outbox d
     WHERE d.state = 'dead' AND (cardinality($1::int8[]) = 0 OR d.id = ANY ($1)) AND ($2 = '' OR d.kind = $2)
     ORDER BY d.id LIMIT $5 FOR UPDATE),
owed AS (
    UPDATE outbox o
       SET state = 'owed', attempts = 0, orphaned = 0, run_at = now(), died_at = NULL, attempt_id = NULL, lease_until = NULL,
           history = right(concat(o.history, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), ' replayed by ',
                                  $4::text, ', after ', c.attempts, ' attempts and ', c.last_error, E'\n'), 10000)
      FROM chosen c WHERE o.id = c.id AND NOT $6
    RETURNING o.id, (extract(epoch FROM o.run_at - o.created_at) * 1000)::int8 AS turn),
noted AS (
    INSERT INTO changes (user_id, role, noun, what)
    SELECT nullif($3::int8, 0), 'admin', 'dead', jsonb_build_object('by', $4, 'replayed', jsonb_agg(o.id ORDER BY o.id))
      FROM owed o HAVING count(*) > 0)
SELECT c.id, coalesce(o.turn, 0) AS turn FROM chosen c LEFT JOIN owed o USING (id) ORDER BY c.id;

-- name: drop_dead :opt Dropped
-- This dead letter will never be done, on record; it stays, and so does its key: the effect is not owed anew.
-- $1 outbox_id int8
-- $2 user_id   int8  -- 0: at the machine
-- $3 by        text
WITH dropped AS (
    UPDATE outbox o
       SET state = 'dropped', done_at = now(),
           history = right(concat(o.history, to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'), ' dropped by ',
                                  $3::text, E'\n'), 10000)
     WHERE o.id = $1 AND o.state = 'dead'
    RETURNING o.id, o.kind, o.key, o.last_error),
noted AS (
    INSERT INTO changes (user_id, role, noun, what)
    SELECT nullif($2::int8, 0), 'admin', 'dead',
           jsonb_build_object('by', $3, 'dropped', jsonb_build_array(d.id), 'kind', d.kind, 'key', d.key,
                              'error', d.last_error) FROM dropped d)
SELECT d.id, d.kind FROM dropped d;
