-- name: refund_order :opt Refunded
-- So much of a paid order goes back, once per key, decided by an admin and on record: to the balance at once, or over the
-- rail that the money came by, whose gateway is owed the call. No row: the key was used before, or it is more than is left.
-- $1 refund_id    uuid
-- $2 order_id     uuid
-- $3 amount_minor int8  -- 0: all that is left
-- $4 target       text  -- balance or rail
-- $5 reason       text
-- $6 note         text
-- $7 user_id      int8  -- who decided
-- $8 key          text
WITH target AS (
    SELECT o.*, CASE $3::int8 WHEN 0 THEN o.total_minor - o.refunded_minor ELSE $3 END AS back_minor FROM orders o
     WHERE o.id = $2 AND o.paid_by IS NOT NULL AND EXISTS (SELECT FROM users u WHERE u.id = $7 AND u.role = 'admin')
       AND NOT EXISTS (SELECT FROM refunds r WHERE r.order_id = $2 AND r.key = $8) FOR UPDATE),
rail AS (
    SELECT p.id, p.provider FROM payments p, target t WHERE p.order_id = t.id AND p.status = 'paid'
       AND ($4 = 'balance' OR p.provider <> 'balance' AND p.received_minor - p.refunded_minor >= t.back_minor)
       FOR UPDATE OF p),
made AS (
    INSERT INTO refunds (id, order_id, payment_id, target, amount_minor, currency, state, reason, note, user_id, key, done_at)
    SELECT $1, t.id, CASE $4 WHEN 'rail' THEN y.id END, $4, t.back_minor, t.currency,
           CASE $4 WHEN 'rail' THEN 'owed' ELSE 'done' END, $5, $6, $7, $8, CASE $4 WHEN 'rail' THEN NULL ELSE now() END
      FROM target t, rail y WHERE t.back_minor BETWEEN 1 AND t.total_minor - t.refunded_minor
    ON CONFLICT (order_id, key) DO NOTHING
    RETURNING id, amount_minor),
changed AS (
    UPDATE orders o SET refunded_minor = o.refunded_minor + m.amount_minor,
           status = after_refund(o.status, o.refunded_minor + m.amount_minor = o.total_minor)
      FROM target t, made m WHERE o.id = t.id
    RETURNING o.id, t.status AS before, o.status, o.refunded_minor),
spent AS (
    UPDATE payments p SET refunded_minor = p.refunded_minor + m.amount_minor FROM made m, rail y
     WHERE p.id = y.id AND $4 = 'rail'),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT 'refund:' || $1, 'sales:' || t.seller_id,
           CASE $4 WHEN 'rail' THEN 'gateway:' || y.provider ELSE 'buyer:' || t.user_id END, m.amount_minor, t.currency,
           'refund', t.id, CASE $4 WHEN 'rail' THEN NULL ELSE t.user_id END FROM target t, rail y, made m),
added AS (
    INSERT INTO balances AS b (user_id, currency, balance_minor)
    SELECT t.user_id, t.currency, m.amount_minor FROM target t, made m WHERE $4 = 'balance'
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, user_id, note)
    SELECT c.id, c.before, c.status, 'admin', $7,
           'refund of ' || m.amount_minor || ' to ' || $4 || ': ' || $6 FROM changed c, made m),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'follow', c.id || ':' || c.refunded_minor, jsonb_build_object('order_id', c.id, 'word', 'refund') FROM changed c
    UNION ALL SELECT 'refund', $1::text, jsonb_build_object('refund_id', $1::uuid) FROM made WHERE $4 = 'rail')
SELECT m.id AS refund_id, m.amount_minor, c.status FROM made m, changed c;

-- name: find_refund :opt Refund
-- The refund that this key made.
-- $1 order_id uuid
-- $2 key      text
SELECT r.id, r.order_id, r.target, r.amount_minor, r.currency, r.state, r.reason, r.note, r.at, r.done_at
  FROM refunds r WHERE r.order_id = $1 AND r.key = $2;

-- name: list_refunds :many Refund
-- All refunds of an order, the oldest first.
-- $1 order_id uuid
SELECT r.id, r.order_id, r.target, r.amount_minor, r.currency, r.state, r.reason, r.note, r.at, r.done_at
  FROM refunds r WHERE r.order_id = $1 ORDER BY r.at, r.id;

-- name: find_call :opt Call
-- What the gateway must be told for a refund that it owes.
-- $1 refund_id uuid
SELECT p.provider, p.invoice_id, r.amount_minor, r.currency, p.refunded_minor AS accounted_minor
  FROM refunds r JOIN payments p ON p.id = r.payment_id WHERE r.id = $1 AND r.state = 'owed';

-- name: finish_refund :opt Finished
-- The gateway has made the refund; or (refused) it never will, and the money is on the buyer's balance instead.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 refund_id  uuid
-- $4 gateway_id text  -- empty: refused
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
ended AS (
    UPDATE refunds r SET state = CASE $4 WHEN '' THEN 'refused' ELSE 'done' END, gateway_id = $4, done_at = now()
      FROM mine WHERE r.id = $3 AND r.state = 'owed'
    RETURNING r.id, r.order_id, r.payment_id, r.amount_minor, r.currency),
refused AS (
    SELECT e.*, o.user_id FROM ended e JOIN orders o ON o.id = e.order_id WHERE $4 = ''),
unspent AS (
    UPDATE payments p SET refunded_minor = p.refunded_minor - f.amount_minor, poll_at = now()  -- what else went back?
      FROM refused f WHERE p.id = f.payment_id
    RETURNING p.provider),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT 'refused:' || f.id, 'gateway:' || u.provider, 'buyer:' || f.user_id, f.amount_minor, f.currency, 'refund',
           f.order_id, f.user_id FROM refused f, unspent u),
added AS (
    INSERT INTO balances AS b (user_id, currency, balance_minor)
    SELECT f.user_id, f.currency, f.amount_minor FROM refused f, unspent  -- payments first, as everywhere
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor),
told AS (
    INSERT INTO outbox (kind, key, aggregate, payload)
    SELECT k.kind, 'refused:' || f.id, CASE k.kind WHEN 'tell' THEN 'tell:' || f.order_id END, jsonb_build_object('order_id', f.order_id, 'word', 'refund_refused', 'status',
           'refund_refused', 'amount_minor', f.amount_minor, 'currency', f.currency)
      FROM refused f, (VALUES ('tell'), ('alert')) AS k (kind) ON CONFLICT (kind, key) DO NOTHING)
SELECT e.order_id FROM ended e;

-- name: repay_order :opt Repaid
-- A paid order was cancelled: what was not delivered of it goes back to its buyer's balance, once.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 order_id   uuid
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.* FROM orders o, mine WHERE o.id = $3 AND o.paid_by IS NOT NULL FOR UPDATE OF o),
back AS (
    SELECT t.*, t.total_minor - t.refunded_minor - (SELECT coalesce(sum(i.price_minor), 0)::int8 FROM order_items i
                 WHERE i.order_id = t.id AND i.state = 'delivered') AS back_minor FROM target t),
made AS (
    INSERT INTO refunds (id, order_id, target, amount_minor, currency, state, reason, key, done_at)
    SELECT gen_random_uuid(), b.id, 'balance', b.back_minor, b.currency, 'done', 'cancelled', 'cancelled', now()
      FROM back b WHERE b.back_minor > 0
    ON CONFLICT (order_id, key) DO NOTHING
    RETURNING order_id, amount_minor),
changed AS (
    UPDATE orders o SET refunded_minor = o.refunded_minor + m.amount_minor FROM made m WHERE o.id = m.order_id
    RETURNING o.id, o.status, o.refunded_minor),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT 'refund:' || b.id || ':cancelled', 'sales:' || b.seller_id, 'buyer:' || b.user_id, m.amount_minor, b.currency,
           'refund', b.id, b.user_id FROM made m JOIN back b ON b.id = m.order_id),
added AS (
    INSERT INTO balances AS a (user_id, currency, balance_minor)
    SELECT b.user_id, b.currency, m.amount_minor FROM made m JOIN back b ON b.id = m.order_id
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = a.balance_minor + excluded.balance_minor),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT c.id, c.status, c.status, 'system', 'refund of ' || m.amount_minor || ' to balance' FROM changed c, made m),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'follow', c.id || ':' || c.refunded_minor, jsonb_build_object('order_id', c.id, 'word', 'refund')
      FROM changed c ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT m.amount_minor, (SELECT o.id FROM owed o) AS outbox_id FROM made m;

-- name: refund_overdue :many Overdue
-- What was to be made by a deadline that has passed goes back to its buyers' balances, line by line.
-- $1 size int8
WITH late AS (
    SELECT DISTINCT i.order_id FROM order_items i WHERE i.state = 'owed' AND i.kind = 'made' AND i.due_at < now() LIMIT $1),
target AS (
    SELECT o.* FROM orders o, late l WHERE o.id = l.order_id AND o.paid_by IS NOT NULL FOR UPDATE OF o SKIP LOCKED),
dropped AS (
    UPDATE order_items i SET state = 'released' FROM target t
     WHERE i.order_id = t.id AND i.state = 'owed' AND i.kind = 'made' AND i.due_at < now()
    RETURNING i.order_id, i.position, i.price_minor),
back AS (
    SELECT t.id, t.user_id, t.seller_id, t.status, t.currency, min(d.position) AS first,
           -- never what an admin gave back for it before: what was kept or is still to come stays paid
           least(sum(d.price_minor)::int8, greatest(0, t.total_minor - t.refunded_minor - (
               SELECT coalesce(sum(i.price_minor), 0) FROM order_items i WHERE i.order_id = t.id AND i.state <> 'released'
                  AND i.position <> ALL (array_agg(d.position))))::int8) AS amount_minor
      FROM target t JOIN dropped d ON d.order_id = t.id
     GROUP BY t.id, t.user_id, t.seller_id, t.status, t.currency, t.total_minor, t.refunded_minor),
made AS (
    INSERT INTO refunds (id, order_id, target, amount_minor, currency, state, reason, key, done_at)
    SELECT gen_random_uuid(), b.id, 'balance', b.amount_minor, b.currency, 'done', 'overdue', 'overdue:' || b.first, now()
      FROM back b WHERE b.amount_minor > 0
    RETURNING order_id, amount_minor, key),
changed AS (
    UPDATE orders o SET refunded_minor = o.refunded_minor + m.amount_minor,
           status = after_refund(o.status, o.refunded_minor + m.amount_minor = o.total_minor)
      FROM made m WHERE o.id = m.order_id
    RETURNING o.id, o.status, o.refunded_minor),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT 'refund:' || b.id || ':' || m.key, 'sales:' || b.seller_id, 'buyer:' || b.user_id, m.amount_minor, b.currency,
           'refund', b.id, b.user_id FROM made m JOIN back b ON b.id = m.order_id),
added AS (
    INSERT INTO balances AS a (user_id, currency, balance_minor)
    SELECT b.user_id, b.currency, sum(m.amount_minor) FROM made m JOIN back b ON b.id = m.order_id
     GROUP BY b.user_id, b.currency ORDER BY b.user_id
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = a.balance_minor + excluded.balance_minor),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT c.id, b.status, c.status, 'system', 'not made by its deadline' FROM changed c JOIN back b ON b.id = c.id),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'follow', c.id || ':' || c.refunded_minor, jsonb_build_object('order_id', c.id, 'word', 'overdue')
      FROM changed c ON CONFLICT (kind, key) DO NOTHING)
SELECT c.id AS order_id FROM changed c;
