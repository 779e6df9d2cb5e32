-- name: pay_from_balance :opt Paid
-- The buyer's balance pays this pending order, whole, or nothing happened: too little on it, or the order cannot be paid.
-- $1 order_id uuid
-- $2 user_id  int8
WITH target AS (
    SELECT o.* FROM orders o WHERE o.id = $1 AND o.user_id = $2 AND o.paid_at IS NULL
       AND o.status NOT IN ('expired', 'cancelled') FOR UPDATE),
taken AS (
    UPDATE balances b SET balance_minor = b.balance_minor - t.total_minor FROM target t
     WHERE b.user_id = t.user_id AND b.currency = t.currency AND b.balance_minor >= t.total_minor
    RETURNING b.balance_minor),
paid AS (
    UPDATE orders o SET status = CASE t.status WHEN 'pending' THEN 'paid' ELSE t.status END, paid_at = now(),
           paid_by = 'balance:' || o.id FROM target t, taken WHERE o.id = t.id
    RETURNING o.id, t.status AS before),
booked AS (
    INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, received_minor, currency, paid_at)
    SELECT t.id, 'balance', 'paid', t.id::text, t.total_minor, t.total_minor, t.currency, now() FROM target t, paid),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT 'sale:' || t.id, 'buyer:' || t.user_id, 'sales:' || t.seller_id, t.total_minor, t.currency, 'from_balance', t.id,
           t.user_id FROM target t, paid),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, user_id, note)
    SELECT p.id, v.before, v.after, 'buyer', $2, 'balance'
      FROM paid p, LATERAL (VALUES (1, p.before, 'paid'), (2, 'paid', p.before)) AS v (n, before, after)
     WHERE v.n = 1 OR p.before <> 'pending' ORDER BY v.n),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'deliver', p.id::text, jsonb_build_object('order_id', p.id) FROM paid p
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT t.balance_minor, (SELECT id FROM owed) AS outbox_id FROM taken t;

-- name: list_balances :many Balance
-- What this buyer has, per currency.
-- $1 user_id int8
SELECT b.currency, b.balance_minor, b.debt_minor FROM balances b WHERE b.user_id = $1 ORDER BY b.currency;

-- name: list_postings :many Entry
-- This buyer's statement, the newest first: what came is positive, what went negative.
-- $1 user_id int8
-- $2 before  int8
-- $3 size    int8
SELECT p.id, p.at, p.reason, p.currency,
       CASE WHEN p.credit LIKE 'buyer:%' THEN p.amount_minor WHEN p.debit LIKE 'buyer:%' THEN -p.amount_minor ELSE 0 END
           AS amount_minor, o.id AS order_id, o.number AS order_number
  FROM postings p LEFT JOIN orders o ON o.id = p.order_id AND o.user_id = $1  -- a bonus is for another's order
 WHERE p.user_id = $1 AND p.id < $2 AND (p.credit LIKE 'buyer:%' OR p.debit LIKE 'buyer:%')
 ORDER BY p.id DESC
 LIMIT $3;

-- name: check_ledger :many Fault
-- Everything that does not add up: no rows is the proof. Zero sum per currency, balances and debts against their
-- postings, sales against orders, what gateways hold against payments.
WITH accounts AS (
    SELECT l.account, l.currency, sum(l.amount_minor) AS sum_minor FROM ledger l GROUP BY l.account, l.currency),
expected AS (
    SELECT 'zero sum' AS rule, c.currency AS subject, 0::numeric AS expected, sum(a.sum_minor) AS found
      FROM accounts a JOIN (SELECT DISTINCT currency FROM accounts) c USING (currency) GROUP BY c.currency
    UNION ALL
    SELECT 'balance', b.user_id || ' ' || b.currency, b.balance_minor, coalesce((SELECT a.sum_minor FROM accounts a
           WHERE a.account = 'buyer:' || b.user_id AND a.currency = b.currency), 0) FROM balances b
    UNION ALL
    SELECT 'debt', b.user_id || ' ' || b.currency, -b.debt_minor, coalesce((SELECT a.sum_minor FROM accounts a
           WHERE a.account = 'debt:' || b.user_id AND a.currency = b.currency), 0) FROM balances b
    UNION ALL
    SELECT 'no balance kept', a.account || ' ' || a.currency, 0, a.sum_minor FROM accounts a
     WHERE a.account ~ '^(buyer|debt):' AND NOT EXISTS (SELECT FROM balances b WHERE b.currency = a.currency
           AND a.account IN ('buyer:' || b.user_id, 'debt:' || b.user_id))
    UNION ALL
    SELECT 'order', o.id::text, CASE WHEN o.paid_by IS NULL THEN 0 ELSE o.total_minor END - o.refunded_minor,
           coalesce((SELECT sum(l.amount_minor) FROM ledger l WHERE l.order_id = o.id AND l.account LIKE 'sales:%'), 0)
      FROM orders o
    UNION ALL
    SELECT 'gateway', y.provider || ' ' || y.currency, -sum(y.received_minor - y.refunded_minor), coalesce((
           SELECT a.sum_minor FROM accounts a WHERE a.account = 'gateway:' || y.provider AND a.currency = y.currency), 0)
      FROM payments y WHERE y.provider <> 'balance' GROUP BY y.provider, y.currency)
SELECT e.rule, e.subject, e.expected::text AS expected, e.found::text AS found FROM expected e WHERE e.expected <> e.found
 ORDER BY e.rule, e.subject;
