-- name: claim_job :opt Job
-- The job is this attempt's until the lease ends; no row when it is done, not due, or another's.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 lease_s    int4
UPDATE outbox SET attempts = attempts + 1, attempt_id = $2, lease_until = now() + $3::int * interval '1 second'
 WHERE id = $1 AND state = 'owed' AND run_at <= now() AND (lease_until IS NULL OR lease_until < now())
RETURNING id, kind, payload::text AS payload, attempts;

-- name: finish_job :opt Closed
-- The job is done; no row when it is no longer this attempt's.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: extend_job :opt Closed
-- The attempt is alive and keeps its lease; no row when the job is no longer this attempt's.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 lease_s    int4
UPDATE outbox SET lease_until = now() + $3::int * interval '1 second'
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: retry_job :opt Closed
-- The attempt failed: the job is free again from a later moment, and this attempt's last sign of life cannot take it back.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 delay_ms   int4
-- $4 error      text
UPDATE outbox SET lease_until = NULL, attempt_id = NULL, run_at = now() + $3::int * interval '1 millisecond',
                  last_error = left($4, 1000)
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: bury_job :opt Closed
-- The job is a dead letter: it waits for a human with its payload and its last error.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 error      text
UPDATE outbox SET state = 'dead', lease_until = NULL, last_error = left($3, 1000)
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: due_jobs :many Due
-- Jobs that should have started by now and are nobody's: their ring was lost, their worker died, or their retry is due.
-- $1 grace_ms int4
-- $2 size     int8
SELECT id, attempts, (extract(epoch FROM now() - run_at) * 1000)::int8 AS overdue_ms FROM outbox
 WHERE state = 'owed' AND run_at <= now() - $1::int * interval '1 millisecond'
   AND (lease_until IS NULL OR lease_until < now())
 ORDER BY run_at
 LIMIT $2;
