-- name: claim_job :opt Job
-- The job is this attempt's until the lease ends; no row when it is done, not due, another's, a mail (email/claim_emails),
-- or when an earlier job of its aggregate is still owed. An attempt that nobody heard of again leaves its id in the row:
-- its worker died.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 lease_s    int4
UPDATE outbox o SET attempts = o.attempts + 1, attempt_id = $2, lease_until = now() + $3::int * interval '1 second',
                    orphaned = CASE WHEN o.attempt_id IS NULL THEN 0 ELSE o.orphaned + 1 END
 WHERE o.id = $1 AND o.state = 'owed' AND o.run_at <= now() AND (o.lease_until IS NULL OR o.lease_until < now())
   AND o.kind <> 'email'
   -- One look at the index, and not NOT EXISTS: an anti-join may read all that waits.
   AND (SELECT e.id FROM outbox e WHERE e.aggregate = o.aggregate AND e.state = 'owed' AND e.id < o.id LIMIT 1) IS NULL
RETURNING o.id, o.kind, o.payload::text AS payload, o.attempts, o.orphaned,
          (extract(epoch FROM now() - o.run_at) * 1000)::int8 AS late_ms;

-- name: finish_job :opt Closed
-- The job is done, and whose turn it is now among those of its aggregate; no row when it is no longer this attempt's.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
WITH closed AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
    RETURNING id, aggregate)
SELECT c.id, (SELECT n.id FROM outbox n WHERE n.aggregate = c.aggregate AND n.state = 'owed' AND n.id <> c.id
               ORDER BY n.id LIMIT 1) AS next_id FROM closed c;

-- name: extend_job :opt Kept
-- The attempt is alive and keeps its lease; no row when the job is no longer this attempt's.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 lease_s    int4
UPDATE outbox SET lease_until = now() + $3::int * interval '1 second'
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: retry_job :opt Kept
-- The attempt failed: the job is free again from a later moment, and this attempt's last sign of life cannot take it back.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 delay_ms   int4
-- $4 error      text
UPDATE outbox SET lease_until = NULL, attempt_id = NULL, run_at = now() + $3::int * interval '1 millisecond',
                  last_error = left($4, 1000)
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: return_job :opt Kept
-- The worker stops: the job is free at once, and the attempt that it has cut is not counted.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
UPDATE outbox SET lease_until = NULL, attempt_id = NULL, run_at = now(), attempts = greatest(attempts - 1, 0)
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: bury_job :opt Closed
-- The job is a dead letter: it waits for a human with its payload and its last error, and those behind it need not wait.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 error      text
WITH closed AS (
    UPDATE outbox SET state = 'dead', died_at = now(), lease_until = NULL, last_error = left($3, 1000)
     WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
    RETURNING id, aggregate)
SELECT c.id, (SELECT n.id FROM outbox n WHERE n.aggregate = c.aggregate AND n.state = 'owed' AND n.id <> c.id
               ORDER BY n.id LIMIT 1) AS next_id FROM closed c;

-- name: due_jobs :many Due
-- Jobs that should have started by now and are nobody's: their ring was lost, their worker died, or their retry is due.
-- Mails are not among them: their drain looks for itself.
-- `turn` is another number for every attempt and every moment from which the job was due.
-- $1 grace_ms int4
-- $2 size     int8
SELECT o.id, o.attempts + (extract(epoch FROM o.run_at - o.created_at) * 1000)::int8 AS turn,
       (extract(epoch FROM now() - o.run_at) * 1000)::int8 AS overdue_ms
  FROM outbox o
 WHERE o.state = 'owed' AND o.run_at > '-infinity' AND o.run_at <= now() - $1::int * interval '1 millisecond'
   AND (o.lease_until IS NULL OR o.lease_until < now()) AND o.kind <> 'email'
   AND (SELECT e.id FROM outbox e WHERE e.aggregate = o.aggregate AND e.state = 'owed' AND e.id < o.id LIMIT 1) IS NULL
 ORDER BY o.run_at
 LIMIT $2;
