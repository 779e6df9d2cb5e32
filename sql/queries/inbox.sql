-- name: store_event :one Stored
-- The event is in the inbox, as it came, and owes a job. A repeat of a final event writes nothing. What was ignored
-- (not paid, said the gateway) or underpaid may have become true since: its job is owed again, as is a dead one.
-- A repeat while the job runs leaves its mark, so that an answer from before it is not taken for the last word.
-- $1 provider   text
-- $2 event_key  text
-- $3 body       bytea
-- $4 headers    jsonb
-- $5 invoice_id text
-- $6 claims     text  -- what the event says of the invoice: paid or other
WITH stored AS (
    INSERT INTO inbox (provider, event_key, body, headers) VALUES ($1, $2, $3, $4)
    ON CONFLICT (provider, event_key) DO NOTHING
    RETURNING id),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'settle', s.id::text,
           jsonb_build_object('inbox_id', s.id, 'provider', $1, 'event_key', $2, 'invoice_id', $5::text,
                              'claims', $6::text)
      FROM stored s
    RETURNING id),
again AS (
    UPDATE outbox o SET state = 'owed', attempts = 0, run_at = now() + interval '5 seconds', done_at = NULL,
                        attempt_id = NULL, lease_until = NULL
      FROM inbox i
     WHERE i.provider = $1 AND i.event_key = $2 AND o.kind = 'settle' AND o.key = i.id::text
       AND (o.state = 'dead' OR o.state = 'done' AND (i.state = 'ignored' OR i.outcome = 'underpaid'))),
marked AS (
    UPDATE inbox i SET repeated_at = now()
     WHERE i.provider = $1 AND i.event_key = $2 AND i.state IN ('new', 'ignored')
       AND (i.repeated_at IS NULL OR i.repeated_at < now() - interval '1 second'))
SELECT (SELECT id FROM owed) AS outbox_id;

-- name: ignore_event :opt Ignored
-- The gateway says that nothing was paid: the event is closed, and a later repeat opens it again. No row when the
-- event was repeated since the gateway was asked, or when the job is no longer ours.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 inbox_id   int8
-- $4 outcome    text
-- $5 asked_ms   int4  -- how long ago the gateway was asked
WITH quiet AS (
    SELECT i.id FROM inbox i WHERE i.id = $3
       AND (i.repeated_at IS NULL OR i.repeated_at < now() - $5::int * interval '1 millisecond' - interval '1 second')
       FOR UPDATE),
mine AS (
    UPDATE outbox SET state = 'done', done_at = now()
     WHERE id = $1 AND attempt_id = $2 AND state = 'owed' AND EXISTS (SELECT FROM quiet) RETURNING id)
UPDATE inbox i SET state = 'ignored', outcome = $4, settled_at = now() FROM mine WHERE i.id = $3
RETURNING i.id AS inbox_id;

-- name: conclude_event :opt Concluded
-- The event is judged and its job done; what only a human can judge is told to the admins. No row: no longer our job.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 inbox_id   int8
-- $4 order_id   uuid  -- may be null
-- $5 outcome    text
-- $6 alert      text  -- the JSON that the admins' message is made of; empty: they need not know
-- $7 state      text  -- settled, or review where a human must look
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
told AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'alert', 'event:' || $3::int8, $6::text::jsonb FROM mine WHERE $6 <> '' ON CONFLICT (kind, key) DO NOTHING)
UPDATE inbox i SET state = $7, order_id = $4, settled_at = now(),
                   outcome = CASE WHEN $5 = 'repeated' AND i.outcome <> '' THEN i.outcome ELSE $5 END  -- a repeat says less
  FROM mine WHERE i.id = $3
RETURNING i.id AS inbox_id;

-- name: list_events :many Listed
-- Events as an operator looks for them, the newest first: of one state, or all.
-- $1 state text  -- empty: any
-- $2 size  int8
SELECT i.id, i.provider, i.event_key, i.state, i.outcome, i.order_id, i.received_at, b.state AS job_state, b.attempts,
       b.last_error
  FROM inbox i LEFT JOIN outbox b ON b.kind = 'settle' AND b.key = i.id::text
 WHERE $1 = '' OR i.state = $1
 ORDER BY i.id DESC LIMIT $2;

-- name: resend_event :opt Resent
-- The event is worked on again, as if it had come now.
-- $1 inbox_id int8
UPDATE outbox b SET state = 'owed', attempts = 0, run_at = now(), done_at = NULL, attempt_id = NULL, lease_until = NULL
  FROM inbox i WHERE i.id = $1 AND b.kind = 'settle' AND b.key = i.id::text
RETURNING b.id AS outbox_id;
