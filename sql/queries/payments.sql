-- name: fail_payment :opt Failed
-- The gateway gave no invoice: the next repeat may try at once.
-- $1 order_id  uuid
-- $2 provider  text
-- $3 opened_at timestamptz  -- whose turn it is
UPDATE payments SET status = 'failed' WHERE order_id = $1 AND provider = $2 AND status = 'opening' AND opened_at = $3
RETURNING id AS payment_id;

-- name: retake_payment :opt Taken
-- This caller may open the payment of an order that can still be paid: an earlier try failed, or died longer ago
-- than the lease.
-- $1 order_id uuid
-- $2 provider text
-- $3 lease_s  int4
UPDATE payments p SET status = 'opening', opened_at = now()
  FROM orders o
 WHERE o.id = p.order_id AND o.status = 'pending' AND o.expires_at > now() + interval '1 minute' AND p.order_id = $1 AND p.provider = $2
   AND (p.status = 'failed' OR p.status = 'opening' AND p.opened_at < now() - $3::int * interval '1 second')
RETURNING o.number, p.currency, p.amount_minor AS total_minor, o.expires_at, p.opened_at,
          p.id AS payment_id;

-- name: settle_payment :opt Verdict
-- One re-fetched payment is judged and recorded: the order is paid only if it is payable and the money equal,
-- with its audit line and the delivery it owes. No row when the job is no longer ours.
-- $1 outbox_id    int8
-- $2 attempt_id   uuid
-- $3 inbox_id     int8
-- $4 provider     text
-- $5 invoice_id   text
-- $6 order_id     uuid    -- what the invoice says; the payment that we opened has precedence; may be null
-- $7 amount_minor int8
-- $8 currency     text
-- $9 lease_s      int4
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
known AS (
    SELECT coalesce((SELECT p.order_id FROM payments p WHERE p.provider = $4 AND p.invoice_id = $5), $6::uuid) AS order_id
      FROM mine),
target AS (
    SELECT o.id, o.status, o.paid_by, o.total_minor, o.currency
      FROM orders o, known k WHERE o.id = k.order_id FOR UPDATE OF o),
verdict AS (
    SELECT t.id AS order_id, CASE
           WHEN t.id IS NULL THEN 'unknown_order'
           WHEN t.paid_by = $4 || ':' || $5 THEN 'repeated'
           WHEN t.currency <> $8 THEN 'wrong_currency'
           WHEN t.total_minor > $7 THEN 'underpaid'
           WHEN t.total_minor < $7 THEN 'overpaid'
           WHEN t.status = 'expired' THEN 'late'
           WHEN t.status <> 'pending' THEN 'not_payable'
           ELSE 'paid' END AS word
      FROM mine LEFT JOIN target t ON true),
paid AS (
    UPDATE orders o SET status = 'paid', paid_at = now(), paid_by = $4 || ':' || $5
      FROM verdict v WHERE o.id = v.order_id AND v.word = 'paid' RETURNING o.id),
booked AS (
    INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, currency, paid_at)
    SELECT p.id, $4, 'paid', $5, $7, $8, now() FROM paid p
    ON CONFLICT (provider, invoice_id) DO UPDATE SET status = 'paid', paid_at = now()),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT p.id, 'pending', 'paid', 'gateway', $4 || ':' || $5 FROM paid p),
owed AS (
    INSERT INTO outbox (kind, key, payload, attempts, attempt_id, lease_until)
    SELECT 'deliver', p.id::text, jsonb_build_object('order_id', p.id), 1, $2, now() + $9::int * interval '1 second'
      FROM paid p
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id),
closed AS (
    UPDATE inbox i SET state = CASE WHEN v.word IN ('paid', 'repeated') THEN 'settled' ELSE 'review' END,
                       outcome = v.word, order_id = v.order_id, settled_at = now()
      FROM verdict v WHERE i.id = $3)
SELECT v.word, v.order_id, (SELECT id FROM owed) AS outbox_id FROM verdict v;
