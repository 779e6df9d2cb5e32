-- name: hear_summons :opt Heard
-- The job that a signed call names, and whether the call is the first with its id; no row: nothing of the kind is, or
-- was, owed. Calls whose signature has expired are forgotten.
-- $1 id         text
-- $2 expires_at timestamptz
-- $3 kind       text
-- $4 key        text  -- empty: by its id
-- $5 outbox_id  int8  -- 0: by its key
WITH past AS (
    DELETE FROM summons s WHERE s.id IN (
        SELECT p.id FROM summons p WHERE p.expires_at < now() - interval '10 minutes'
         ORDER BY p.expires_at LIMIT 100 FOR UPDATE SKIP LOCKED)),
target AS (
    SELECT o.id, o.state, o.attempts, o.run_at, o.created_at FROM outbox o WHERE o.kind = $3 AND o.key = $4
    UNION ALL
    SELECT o.id, o.state, o.attempts, o.run_at, o.created_at FROM outbox o WHERE o.id = $5 AND o.kind = $3),
taken AS (
    INSERT INTO summons (id, expires_at) SELECT $1, $2 FROM target ON CONFLICT (id) DO NOTHING RETURNING id)
SELECT t.id AS outbox_id, t.state, t.attempts + (extract(epoch FROM t.run_at - t.created_at) * 1000)::int8 AS turn,
       EXISTS (SELECT FROM taken) AS first FROM target t;
