-- name: create_endpoint :one Entered
-- A new endpoint with its audit line, or the word says why not. Two made at once may be one more than the limit.
-- $1 user_id     int8
-- $2 endpoint_id uuid
-- $3 seller_id   int8    -- may be null: a seller's own
-- $4 url         text
-- $5 types       text[]
-- $6 sealed      bytea
-- $7 most        int8    -- that one seller may have
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
owner AS (
    SELECT s.id, w.role, (SELECT count(*) FROM endpoints e WHERE e.seller_id = s.id AND e.deleted_at IS NULL) >= $7 AS full
      FROM who w JOIN sellers s ON s.id = coalesce($3, w.seller_id)
     WHERE w.role = 'admin' OR s.id = w.seller_id),
made AS (
    INSERT INTO endpoints (id, seller_id, url, types, sealed) SELECT $2, o.id, $4, $5, $6 FROM owner o WHERE NOT o.full
    RETURNING id, seller_id, url, types),
noted AS (
    INSERT INTO changes (user_id, role, noun, endpoint_id, what)
    SELECT $1, o.role, 'webhook', m.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', NULL, 'new', f.value))
             FROM jsonb_each(to_jsonb(m) - 'id') f)
      FROM made m CROSS JOIN owner o)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN EXISTS (SELECT FROM made) THEN 'created'
            WHEN EXISTS (SELECT FROM owner) THEN 'full'
            ELSE 'no_seller' END AS word;

-- name: change_endpoint :one Changed
-- The given fields of an endpoint are as given, with the audit line, or the word says why not. Enabled again it starts
-- with a clean slate.
-- $1 user_id     int8
-- $2 endpoint_id uuid
-- $3 version     int8   -- the one that the caller has seen
-- $4 fields      jsonb  -- of url, types, enabled: only those to change
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
target AS (
    SELECT e.id, e.version, w.role, jsonb_build_object('url', e.url, 'types', to_jsonb(e.types),
           'enabled', e.disabled_at IS NULL) AS was
      FROM endpoints e JOIN who w ON w.role = 'admin' OR e.seller_id = w.seller_id
     WHERE e.id = $2 AND e.deleted_at IS NULL FOR UPDATE OF e),
judged AS (
    SELECT t.*, t.was || $4 AS will, CASE WHEN t.version <> $3 THEN 'stale' WHEN t.was = t.was || $4 THEN 'unchanged'
           ELSE 'changed' END AS word FROM target t),
changed AS (
    UPDATE endpoints e
       SET url = j.will ->> 'url', types = ARRAY(SELECT jsonb_array_elements_text(j.will -> 'types')), version = e.version + 1,
           disabled_at = CASE WHEN NOT (j.will ->> 'enabled')::bool THEN coalesce(e.disabled_at, now()) END,
           disabled_why = CASE WHEN NOT (j.will ->> 'enabled')::bool THEN coalesce(e.disabled_why, 'staff') END,
           failing_since = CASE WHEN j.was -> 'enabled' = j.will -> 'enabled' THEN e.failing_since END
      FROM judged j WHERE e.id = j.id AND j.word = 'changed'
    RETURNING e.id, e.version),
noted AS (
    INSERT INTO changes (user_id, role, noun, endpoint_id, what)
    SELECT $1, j.role, 'webhook', c.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', j.was -> f.key, 'new', f.value))
             FROM jsonb_each(j.will) f WHERE j.was -> f.key IS DISTINCT FROM f.value)
      FROM changed c CROSS JOIN judged j)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' ELSE coalesce(j.word, 'missing') END AS word,
       coalesce((SELECT version FROM changed), j.version) AS version
  FROM (VALUES (1)) one LEFT JOIN judged j ON true;

-- name: rotate_secret :one Changed
-- Another secret signs from now on, and for a while the one before it signs too; or the word says why not.
-- $1 user_id     int8
-- $2 endpoint_id uuid
-- $3 sealed      bytea
-- $4 keep_s      int4
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
changed AS (
    UPDATE endpoints e SET sealed = $3, former = e.sealed, former_until = now() + $4::int * interval '1 second',
           version = e.version + 1
      FROM who w WHERE e.id = $2 AND e.deleted_at IS NULL AND (w.role = 'admin' OR e.seller_id = w.seller_id)
    RETURNING e.id, e.version, e.former_until, w.role),
noted AS (
    INSERT INTO changes (user_id, role, noun, endpoint_id, what)
    SELECT $1, c.role, 'webhook', c.id, jsonb_build_object('secret', jsonb_build_object('old', NULL, 'new', 'rotated'))
      FROM changed c)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' WHEN c.id IS NULL THEN 'missing' ELSE 'changed' END AS word,
       c.version FROM (VALUES (1)) one LEFT JOIN changed c ON true;

-- name: delete_endpoint :one Changed
-- The endpoint is called no more and its secrets are gone, with the audit line; or the word says why not.
-- $1 user_id     int8
-- $2 endpoint_id uuid
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
changed AS (
    UPDATE endpoints e SET deleted_at = now(), sealed = NULL, former = NULL, former_until = NULL, version = e.version + 1
      FROM who w WHERE e.id = $2 AND e.deleted_at IS NULL AND (w.role = 'admin' OR e.seller_id = w.seller_id)
    RETURNING e.id, e.version, e.url, w.role),
noted AS (
    INSERT INTO changes (user_id, role, noun, endpoint_id, what)
    SELECT $1, c.role, 'webhook', c.id, jsonb_build_object('url', jsonb_build_object('old', c.url, 'new', NULL))
      FROM changed c)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' WHEN c.id IS NULL THEN 'missing' ELSE 'changed' END AS word,
       c.version FROM (VALUES (1)) one LEFT JOIN changed c ON true;

-- name: find_endpoint :opt Endpoint
-- One endpoint as its staff see it; no row for one, or for a user, that has nothing to do with it.
-- $1 user_id     int8
-- $2 endpoint_id uuid
SELECT e.id, e.seller_id, e.url, e.types, e.disabled_at, e.disabled_why, e.failing_since, e.heard_at, e.former_until,
       e.version, e.created_at
  FROM staff w JOIN endpoints e ON w.role = 'admin' OR e.seller_id = w.seller_id
 WHERE w.user_id = $1 AND e.id = $2 AND e.deleted_at IS NULL;

-- name: list_endpoints :many Endpoint
-- A page of endpoints in the order of ids, as their staff see them.
-- $1 user_id int8
-- $2 after   uuid  -- the last one of the page before; all zeros: from the start
-- $3 size    int8
SELECT e.id, e.seller_id, e.url, e.types, e.disabled_at, e.disabled_why, e.failing_since, e.heard_at, e.former_until,
       e.version, e.created_at
  FROM staff w JOIN endpoints e ON w.role = 'admin' OR e.seller_id = w.seller_id
 WHERE w.user_id = $1 AND e.id > $2 AND e.deleted_at IS NULL
 ORDER BY e.id
 LIMIT $3;

-- name: owe_calls :many Owed
-- Each endpoint of the order's seller that wants this event is owed a call with it, as the order is now; one that was
-- owed the same before is owed nothing new.
-- $1 order_id uuid
-- $2 event_id int8  -- of order_events
-- $3 type     text
-- $4 at       timestamptz
WITH told AS (  -- of titles only so much that 20 lines of any script stay below 20 kB
    SELECT o.seller_id, 'evt_' || $2::int8 || CASE $3::text WHEN 'order.status' THEN '_status' ELSE '' END AS name,
           jsonb_build_object('type', $3::text, 'timestamp', $4::timestamptz, 'data', jsonb_build_object(
               'order_id', o.id, 'number', o.number, 'status', coalesce(v.to_status, o.status), 'currency', o.currency,
               'total_minor', o.total_minor, 'refunded_minor', o.refunded_minor, 'lines', (
                   SELECT coalesce(jsonb_agg(jsonb_build_object('product_id', l.product_id, 'title', left(l.title, 140), 'quantity',
                          l.quantity, 'total_minor', l.total_minor) ORDER BY l.first), '[]')
                     FROM (SELECT i.product_id, i.title, count(*) AS quantity, sum(i.price_minor) AS total_minor,
                                  min(i.position) AS first
                             FROM order_items i WHERE i.order_id = o.id GROUP BY i.product_id, i.title) l))) AS event
      FROM orders o LEFT JOIN order_events v ON v.id = $2 AND v.order_id = o.id WHERE o.id = $1)
INSERT INTO outbox (kind, key, payload)
SELECT 'hook', t.name || ':' || e.id, jsonb_build_object('endpoint_id', e.id, 'event_id', t.name, 'event', t.event)
  FROM told t JOIN endpoints e ON e.seller_id = t.seller_id
 WHERE e.deleted_at IS NULL AND e.disabled_at IS NULL AND (e.types = '{}' OR $3 = ANY (e.types))
ON CONFLICT (kind, key) DO NOTHING
RETURNING id;

-- name: owe_test :opt Owed
-- One endpoint, enabled and this user's, is owed a call that says nothing.
-- $1 user_id     int8
-- $2 endpoint_id uuid
-- $3 event_id    text
-- $4 type        text
INSERT INTO outbox (kind, key, payload)
SELECT 'hook', $3 || ':' || e.id, jsonb_build_object('endpoint_id', e.id, 'event_id', $3::text, 'event',
       jsonb_build_object('type', $4::text, 'timestamp', now(), 'data', jsonb_build_object('webhook_id', e.id)))
  FROM staff w JOIN endpoints e ON w.role = 'admin' OR e.seller_id = w.seller_id
 WHERE w.user_id = $1 AND e.id = $2 AND e.deleted_at IS NULL AND e.disabled_at IS NULL
RETURNING id;

-- name: list_calls :many Listed
-- What an endpoint was sent or is owed, the newest first; whose endpoint it is has been asked before.
-- $1 endpoint_id uuid
-- $2 before      int8  -- the last one of the page before; only older ones
-- $3 size        int8
SELECT o.id, o.payload ->> 'event_id' AS event_id, o.state, o.attempts, o.created_at, o.run_at, o.done_at, o.last_error,
       (o.payload -> 'event')::text AS event
  FROM outbox o WHERE o.kind = 'hook' AND o.payload ->> 'endpoint_id' = $1::uuid::text AND o.id < $2
 ORDER BY o.id DESC
 LIMIT $3;

-- name: replay_calls :many Again
-- An event is owed to an endpoint again, heard or not; or all since a moment that it has not heard. On record.
-- $1 user_id     int8
-- $2 endpoint_id uuid
-- $3 event_id    text         -- empty: by the moment
-- $4 since       timestamptz  -- may be null: by the event
-- $5 size        int8
WITH chosen AS (
    SELECT o.id FROM outbox o WHERE o.kind = 'hook' AND o.key = $3 || ':' || $2::uuid::text
    UNION ALL (
    SELECT o.id FROM outbox o
     WHERE o.kind = 'hook' AND o.payload ->> 'endpoint_id' = $2::uuid::text AND o.created_at >= $4 AND o.state <> 'done'
     ORDER BY o.id DESC LIMIT $5)),
owed AS (
    UPDATE outbox o SET state = 'owed', attempts = 0, run_at = now(), done_at = NULL, died_at = NULL, attempt_id = NULL,
                        lease_until = NULL
      FROM chosen c, endpoints e, staff w
     WHERE o.id = c.id AND (o.state <> 'owed' OR o.lease_until IS NULL) AND e.id = $2 AND e.deleted_at IS NULL
       AND e.disabled_at IS NULL AND w.user_id = $1 AND (w.role = 'admin' OR e.seller_id = w.seller_id)
    RETURNING o.id, (extract(epoch FROM o.run_at - o.created_at) * 1000)::int8 AS turn),
noted AS (
    INSERT INTO changes (user_id, role, noun, endpoint_id, what)
    SELECT $1, w.role, 'webhook', $2, jsonb_build_object('replayed', jsonb_build_object('old', NULL, 'new', count(*)))
      FROM owed o, staff w WHERE w.user_id = $1 GROUP BY w.role)
SELECT o.id, o.turn FROM owed o ORDER BY o.id;

-- name: find_target :opt Target
-- What a call to an endpoint needs; no row for a deleted one.
-- $1 endpoint_id uuid
SELECT e.seller_id, e.url, e.sealed, CASE WHEN e.former_until > now() THEN e.former END AS former,
       coalesce(e.disabled_why, '') AS disabled_why
  FROM endpoints e WHERE e.id = $1 AND e.deleted_at IS NULL;

-- name: hear_call :opt Closed
-- The endpoint has heard: the call is done, and whatever failed before is forgiven.
-- $1 outbox_id   int8
-- $2 attempt_id  uuid
-- $3 endpoint_id uuid
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
heard AS (  -- not with each call: the row would be everybody's bottleneck
    UPDATE endpoints e SET heard_at = now(), failing_since = NULL FROM mine
     WHERE e.id = $3 AND (e.failing_since IS NOT NULL OR e.heard_at IS NULL OR e.heard_at < now() - interval '1 minute'))
SELECT m.id FROM mine m;

-- name: fail_call :opt Disabled
-- The endpoint has not heard: since when is known, and after days of nothing else, or when it is gone, it is disabled and
-- its people are told. A row when this call disabled it.
-- $1 endpoint_id uuid
-- $2 gone        bool
-- $3 patience_s  int4
-- $4 alert       text  -- the JSON that the message is made of
WITH failed AS (
    UPDATE endpoints e
       SET failing_since = coalesce(e.failing_since, now()),
           disabled_at = CASE WHEN $2 OR e.failing_since < now() - $3::int * interval '1 second' THEN now() END,
           disabled_why = CASE WHEN $2 THEN 'gone'
                               WHEN e.failing_since < now() - $3::int * interval '1 second' THEN 'failing' END
     WHERE e.id = $1 AND e.deleted_at IS NULL AND e.disabled_at IS NULL
       AND ($2 OR e.failing_since IS NULL OR e.failing_since < now() - $3::int * interval '1 second')
    RETURNING e.id, e.seller_id, e.disabled_why, e.disabled_at),
told AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'alert', 'webhook:' || f.id || ':' || f.disabled_at, $4::text::jsonb || jsonb_build_object('word',
           'webhook_' || f.disabled_why, 'seller_id', f.seller_id)
      FROM failed f WHERE f.disabled_at IS NOT NULL ON CONFLICT (kind, key) DO NOTHING)
SELECT f.disabled_why AS why FROM failed f WHERE f.disabled_at IS NOT NULL;

-- name: postpone_call :opt Closed
-- There is no room for the call now: it is free again from a later moment, and nothing was tried.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 delay_ms   int4
UPDATE outbox SET lease_until = NULL, attempt_id = NULL, run_at = now() + $3::int * interval '1 millisecond',
                  attempts = greatest(attempts - 1, 0)
 WHERE id = $1 AND attempt_id = $2 AND state = 'owed'
RETURNING id;
