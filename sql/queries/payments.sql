-- name: fail_payment :opt Failed
-- The gateway gave no invoice: the next repeat may try at once.
-- $1 order_id  uuid
-- $2 provider  text
-- $3 opened_at timestamptz  -- whose turn it is
UPDATE payments SET status = 'failed' WHERE order_id = $1 AND provider = $2 AND status = 'opening' AND opened_at = $3
RETURNING id AS payment_id;

-- name: settle_payment :opt Verdict
-- What the gateway says of one invoice is judged. Money that pays its order does so here: payment, posting, audit line
-- and the delivery that is owed; when nothing is left over, event and job are closed too. Every other word changes
-- nothing: its own statement does. No row: the job is no longer ours.
-- $1 outbox_id    int8
-- $2 attempt_id   uuid
-- $3 inbox_id     int8
-- $4 provider     text
-- $5 invoice_id   text
-- $6 order_id     uuid  -- what the invoice says; the payment that we opened has precedence; may be null
-- $7 amount_minor int8  -- that came in all
-- $8 currency     text
-- $9 refunded_minor int8  -- that went back meanwhile: all of it, and nothing is delivered
-- $10 lease_s     int4
WITH mine AS (
    SELECT b.id FROM outbox b WHERE b.id = $1 AND b.attempt_id = $2 AND b.state = 'owed' FOR UPDATE),
known AS (
    SELECT coalesce(p.order_id, $6::uuid) AS order_id, coalesce(p.received_minor, 0) AS before
      FROM mine LEFT JOIN payments p ON p.provider = $4 AND p.invoice_id = $5),
target AS (
    SELECT o.* FROM orders o, known k WHERE o.id = k.order_id FOR UPDATE OF o),
verdict AS (
    SELECT t.id, t.user_id, t.seller_id, t.total_minor, k.before, $7 - k.before AS came_minor,
           t.paid_at IS NULL AND t.status NOT IN ('expired', 'cancelled') AND t.credited_minor >= t.total_minor AS covered,
           CASE WHEN t.id IS NULL THEN 'unknown_order'
           WHEN t.currency <> $8 THEN 'wrong_currency'
           WHEN $7 <= k.before THEN 'repeated'
           WHEN t.paid_by = $4 || ':' || $5 THEN 'overpaid'
           WHEN t.paid_at IS NOT NULL AND t.status NOT IN ('expired', 'cancelled') THEN 'second'
           WHEN t.status = 'cancelled' THEN 'cancelled'
           WHEN $7 - k.before < t.total_minor THEN CASE t.status WHEN 'expired' THEN 'late_part' ELSE 'underpaid' END
           WHEN t.status = 'expired' THEN 'late'
           ELSE 'paid' END AS word
      FROM known k LEFT JOIN target t ON true),
booked AS (
    INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, received_minor, currency, paid_at)
    SELECT v.id, $4, 'paid', $5, v.total_minor, v.before + v.total_minor, $8, now() FROM verdict v WHERE v.word = 'paid'
    ON CONFLICT (provider, invoice_id) DO UPDATE
       SET status = 'paid', received_minor = excluded.received_minor, paid_at = now(), poll_at = NULL
     WHERE payments.received_minor = (SELECT v.before FROM verdict v)
    RETURNING order_id AS id),
paid AS (
    -- What its seller has moved on unpaid stays where it is.
    UPDATE orders o SET status = CASE o.status WHEN 'pending' THEN 'paid' ELSE o.status END, paid_at = now(),
           paid_by = $4 || ':' || $5 FROM booked b WHERE o.id = b.id RETURNING o.id, o.status),
noted AS (INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT p.id, v.before, v.after, 'gateway', $4 || ':' || $5
      FROM paid p, target t, LATERAL (VALUES (1, t.status, 'paid'), (2, 'paid', t.status)) AS v (n, before, after)
     WHERE v.n = 1 OR t.status <> 'pending' ORDER BY v.n),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id)
    SELECT 'sale:' || b.id, 'gateway:' || $4, 'sales:' || v.seller_id, v.total_minor, $8, 'sale', b.id
      FROM booked b, verdict v),
owed AS (
    INSERT INTO outbox (kind, key, payload, attempts, attempt_id, lease_until)
    SELECT 'deliver', b.id::text, jsonb_build_object('order_id', b.id), 1, $2, now() + $10::int * interval '1 second'
      FROM booked b WHERE $9::int8 < $7 ON CONFLICT (kind, key) DO NOTHING RETURNING id),
closed AS (
    UPDATE inbox i SET state = 'settled', outcome = v.word, order_id = v.id, settled_at = now()
      FROM booked, verdict v WHERE i.id = $3 AND v.came_minor = v.total_minor AND $9 = 0 RETURNING i.id),
done AS (
    UPDATE outbox b SET state = 'done', done_at = now() FROM closed WHERE b.id = $1)
SELECT v.word, v.id AS order_id, v.user_id, v.came_minor, v.covered, EXISTS (SELECT FROM booked) AS booked,
       (SELECT id FROM owed) AS outbox_id, EXISTS (SELECT FROM closed) AS closed
  FROM verdict v;

-- name: credit_payment :opt Credited
-- Money that does not pay its order is on the buyer's balance, once, and the buyer is told. What came for a pending
-- order counts towards it, and its goods are kept for one more window. No row: another was faster, judge again.
-- $1 attempt_id   uuid
-- $2 outbox_id    int8
-- $3 inbox_id     int8
-- $4 provider     text
-- $5 invoice_id   text
-- $6 order_id     uuid
-- $7 came_minor   int8   -- on top of what was booked before
-- $8 amount_minor int8   -- in all
-- $9 currency     text
-- $10 word        text  -- overpaid, second, underpaid, late, late_part or cancelled
-- $11 window_s    int4
WITH target AS (
    SELECT o.id, o.user_id, o.status, o.total_minor, o.currency,
           o.paid_at IS NULL AND o.status NOT IN ('expired', 'cancelled') AS payable FROM orders o
     WHERE o.id = $6 AND o.currency = $9
       AND EXISTS (SELECT FROM outbox b WHERE b.id = $2 AND b.attempt_id = $1 AND b.state = 'owed')
       FOR UPDATE),
booked AS (
    INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, received_minor, currency)
    SELECT t.id, $4, 'credited', $5, $8, $8, $9 FROM target t
     WHERE NOT (t.payable AND $7 >= t.total_minor)
    ON CONFLICT (provider, invoice_id) DO UPDATE
       SET received_minor = excluded.received_minor,
           status = CASE payments.status WHEN 'paid' THEN 'paid' ELSE 'credited' END,
           poll_at = CASE payments.status WHEN 'paid' THEN NULL ELSE payments.poll_at END
     WHERE payments.received_minor = $8 - $7
    RETURNING order_id AS id),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT $10 || ':' || $4 || ':' || $5 || ':' || $8, 'gateway:' || $4, 'buyer:' || t.user_id, $7, $9, $10, t.id,
           t.user_id FROM booked, target t),
added AS (
    INSERT INTO balances AS b (user_id, currency, balance_minor) SELECT t.user_id, $9, $7 FROM booked, target t
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor
    RETURNING b.balance_minor),
counted AS (
    UPDATE orders o SET credited_minor = o.credited_minor + $7,
           expires_at = greatest(o.expires_at, now() + $11::int * interval '1 second')
      FROM booked b, target t WHERE o.id = b.id AND t.payable
    RETURNING o.credited_minor >= o.total_minor AS covered),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT t.id, t.status, t.status, 'gateway', $10 || ' ' || $4 || ':' || $5 FROM booked, target t),
told AS (
    INSERT INTO outbox (kind, key, aggregate, payload)
    SELECT 'tell', concat_ws(':', $10, $3::int8, $8), 'tell:' || t.id, jsonb_build_object('order_id', t.id, 'status', $10::text,
           'amount_minor', $7::int8) FROM booked, target t WHERE NOT coalesce((SELECT c.covered FROM counted c), false)
    ON CONFLICT (kind, key) DO NOTHING)
SELECT a.balance_minor, coalesce((SELECT c.covered FROM counted c), false) AS covered FROM added a;

-- name: reverse_payment :opt Reversed
-- Money went back at the gateway by no order of ours (a chargeback, the merchant's cabinet): what it paid is refunded,
-- what it had credited is taken from the balance, and what is spent of that already is a debt. No row: it was known.
-- $1 provider       text
-- $2 invoice_id     text
-- $3 refunded_minor int8  -- in all, as the gateway says
WITH target AS (
    SELECT o.* FROM orders o
     WHERE o.id = (SELECT p.order_id FROM payments p WHERE p.provider = $1 AND p.invoice_id = $2) FOR UPDATE),
known AS (
    SELECT p.id, p.status, p.refunded_minor AS before, least($3, p.received_minor) AS after FROM payments p, target
     WHERE p.provider = $1 AND p.invoice_id = $2 FOR UPDATE OF p),
held AS (
    SELECT b.balance_minor FROM balances b, target t
     WHERE b.user_id = t.user_id AND b.currency = t.currency FOR UPDATE OF b),
sold AS (
    SELECT t.id, t.user_id, t.seller_id, t.status, t.currency, k.before, k.after, k.after - k.before AS gone_minor,
           least(k.after - k.before, CASE k.status WHEN 'paid' THEN t.total_minor - t.refunded_minor ELSE 0 END)
               AS sold_minor
      FROM known k, target t WHERE k.after > k.before),
split AS (
    SELECT s.*, least(s.gone_minor - s.sold_minor, coalesce((SELECT h.balance_minor FROM held h), 0)) AS taken_minor
      FROM sold s),
marked AS (
    UPDATE payments p SET refunded_minor = s.after FROM split s, known k WHERE p.id = k.id),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT concat_ws(':', l.name, $1, $2, s.before, s.after), l.debit, 'gateway:' || $1, l.amount_minor, s.currency,
           'chargeback', s.id, l.user_id
      FROM split s CROSS JOIN LATERAL (VALUES
           ('reversed', 'sales:' || s.seller_id, s.sold_minor, NULL),
           ('taken', 'buyer:' || s.user_id, s.taken_minor, s.user_id),
           ('lent', 'debt:' || s.user_id, s.gone_minor - s.sold_minor - s.taken_minor, s.user_id))
           AS l (name, debit, amount_minor, user_id) WHERE l.amount_minor > 0),
moved AS (
    INSERT INTO balances AS b (user_id, currency, debt_minor)
    SELECT s.user_id, s.currency, s.gone_minor - s.sold_minor - s.taken_minor
      FROM split s WHERE s.gone_minor > s.sold_minor
    ON CONFLICT (user_id, currency) DO UPDATE
       SET balance_minor = b.balance_minor - (SELECT s.taken_minor FROM split s),
           debt_minor = b.debt_minor + excluded.debt_minor),
changed AS (
    UPDATE orders o SET refunded_minor = o.refunded_minor + s.sold_minor,
           status = after_refund(o.status, o.refunded_minor + s.sold_minor = o.total_minor)
      FROM split s WHERE o.id = s.id AND s.sold_minor > 0
    RETURNING o.id, o.status, o.refunded_minor),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT c.id, s.status, c.status, 'gateway', 'charged back ' || $1 || ':' || $2 FROM changed c, split s),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'follow', c.id || ':' || c.refunded_minor, jsonb_build_object('order_id', c.id, 'word', 'chargeback')
      FROM changed c ON CONFLICT (kind, key) DO NOTHING)
SELECT s.id AS order_id, s.sold_minor, s.taken_minor, s.gone_minor - s.sold_minor - s.taken_minor AS lent_minor FROM split s;

-- name: close_payment :opt Closed
-- The gateway will take no money for this invoice any more: it is not asked again, and another may be opened.
-- $1 provider   text
-- $2 invoice_id text
UPDATE payments p SET poll_at = NULL, status = CASE p.status WHEN 'open' THEN 'cancelled' ELSE p.status END
 WHERE p.provider = $1 AND p.invoice_id = $2 AND (p.poll_at IS NOT NULL OR p.status = 'open')
RETURNING p.id AS payment_id;

-- name: open_payment :opt Opening
-- A payment of this buyer's pending order is about to be opened by this caller, for what the order still lacks; or the
-- one that is there already, with its link. No row: the order cannot be paid (any more), or lacks nothing.
-- $1 order_id uuid
-- $2 user_id  int8
-- $3 provider text
-- $4 lease_s  int4
WITH target AS (
    SELECT o.id, o.number, o.currency, o.expires_at, o.total_minor - least(o.credited_minor, coalesce((
               SELECT b.balance_minor FROM balances b WHERE b.user_id = o.user_id AND b.currency = o.currency), 0))
               AS due_minor
      FROM orders o
     WHERE o.id = $1 AND o.user_id = $2 AND o.paid_at IS NULL AND o.status NOT IN ('expired', 'cancelled')
       AND (o.status <> 'pending' OR o.expires_at > now() + interval '1 minute')
       FOR UPDATE),
current AS (
    SELECT p.id, p.status, p.url, p.amount_minor, p.opened_at FROM payments p, target t
     WHERE p.order_id = t.id AND p.provider = $3 AND p.status IN ('opening', 'failed', 'open') FOR UPDATE OF p),
retaken AS (
    UPDATE payments p SET status = 'opening', opened_at = now()
      FROM current c WHERE p.id = c.id
       AND (c.status = 'failed' OR c.status = 'opening' AND c.opened_at < now() - $4::int * interval '1 second')
    RETURNING p.id, p.amount_minor, p.opened_at),
added AS (
    INSERT INTO payments (order_id, provider, amount_minor, currency)
    SELECT t.id, $3, t.due_minor, t.currency FROM target t WHERE t.due_minor > 0 AND NOT EXISTS (SELECT FROM current)
    ON CONFLICT DO NOTHING  -- another request was faster: no row, the caller asks again
    RETURNING id, amount_minor, opened_at),
found AS (
    SELECT a.id, a.amount_minor, a.opened_at, 'ours' AS turn, '' AS url FROM added a
    UNION ALL SELECT r.id, r.amount_minor, r.opened_at, 'ours', '' FROM retaken r
    UNION ALL SELECT c.id, c.amount_minor, c.opened_at, CASE c.status WHEN 'open' THEN 'open' ELSE 'busy' END, c.url
      FROM current c WHERE NOT EXISTS (SELECT FROM retaken))
SELECT t.number, t.currency, f.amount_minor AS total_minor, t.expires_at, f.opened_at, f.id AS payment_id, f.turn, f.url
  FROM found f, target t;

-- name: open_quota :opt Quota
-- The provider has its bucket, full; no row when it had it before.
-- $1 provider   text
-- $2 per_minute int4
INSERT INTO quotas (provider, calls) VALUES ($1, $2::int4) ON CONFLICT DO NOTHING RETURNING provider;

-- name: due_payments :many Due
-- Invoices of one provider that it should be asked about, as many as its bucket has calls for; all processes draw on it
-- one after another. Each invoice has its next turn after a quarter of its age, from 15 seconds to 30 minutes, for three days.
-- $1 provider   text
-- $2 per_minute int4
WITH room AS (
    SELECT q.provider, least($2::int4, q.calls + greatest(0, extract(epoch FROM now() - q.at)) * $2 / 60) AS calls
      FROM quotas q WHERE q.provider = $1 FOR UPDATE),
due AS (
    SELECT p.id FROM payments p WHERE p.provider = $1 AND p.poll_at <= now()
     ORDER BY p.poll_at LIMIT (SELECT floor(r.calls)::int8 FROM room r) FOR UPDATE OF p SKIP LOCKED),
spent AS (
    UPDATE quotas q SET calls = r.calls - (SELECT count(*) FROM due), at = greatest(q.at, now())
      FROM room r WHERE q.provider = r.provider)
UPDATE payments p SET poll_at = CASE WHEN p.opened_at > now() - interval '3 days' THEN now() + least(
       interval '30 minutes', greatest(interval '15 seconds', (now() - p.opened_at) / 4)) END
  FROM due d WHERE p.id = d.id
RETURNING p.invoice_id, p.received_minor, p.refunded_minor;

-- name: settle_signed :many Taken
-- Callbacks whose signature proves their money, any number at once. Each new event is in the inbox; where it pays its
-- pending order to the unit the order is paid and its delivery owed; every other one owes a settle job, which asks the
-- gateway. An order that somebody else is at is left to the job, so batches never wait for each other.
-- $1 providers   text[]
-- $2 event_keys  text[]
-- $3 bodies      bytea[]
-- $4 headers     text[]  -- JSON
-- $5 invoice_ids text[]
-- $6 order_ids   uuid[]
-- $7 amounts     int8[]
-- $8 currencies  text[]
WITH given AS (
    SELECT g.*, row_number() OVER (PARTITION BY g.provider, g.event_key ORDER BY g.n) > 1 OR EXISTS (
           SELECT FROM inbox i WHERE i.provider = g.provider AND i.event_key = g.event_key) AS known
      FROM unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::text[], $6::uuid[], $7::int8[], $8::text[])
           WITH ORDINALITY AS g (provider, event_key, body, headers, invoice_id, order_id, amount_minor, currency, n)),
target AS (
    SELECT o.id, g.n, g.provider, g.invoice_id, g.amount_minor, g.currency
      FROM given g LEFT JOIN payments p ON p.provider = g.provider AND p.invoice_id = g.invoice_id
     -- Lateral, so that each is looked up by its id: as a plain join every pending order of the shop is read.
     CROSS JOIN LATERAL (
           SELECT o.id FROM orders o WHERE o.id = coalesce(p.order_id, g.order_id) AND o.status = 'pending'
              AND o.total_minor = g.amount_minor AND o.currency = g.currency FOR UPDATE SKIP LOCKED) o
     WHERE NOT g.known AND coalesce(p.received_minor, 0) = 0),
single AS (SELECT DISTINCT ON (t.id) t.* FROM target t ORDER BY t.id, t.n),
booked AS (
    INSERT INTO payments (order_id, provider, status, invoice_id, amount_minor, received_minor, currency, paid_at)
    SELECT s.id, s.provider, 'paid', s.invoice_id, s.amount_minor, s.amount_minor, s.currency, now() FROM single s
    ON CONFLICT (provider, invoice_id) DO UPDATE
       SET status = 'paid', received_minor = excluded.received_minor, paid_at = now(), poll_at = NULL
     WHERE payments.received_minor = 0
    RETURNING order_id, provider, invoice_id),
paid AS (
    UPDATE orders o SET status = 'paid', paid_at = now(), paid_by = b.provider || ':' || b.invoice_id
      FROM booked b WHERE o.id = b.order_id
    RETURNING o.id, o.seller_id, o.total_minor, o.currency, o.paid_by, b.provider),
noted AS (INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT p.id, 'pending', 'paid', 'gateway', p.paid_by FROM paid p),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id)
    SELECT 'sale:' || p.id, 'gateway:' || p.provider, 'sales:' || p.seller_id, p.total_minor, p.currency, 'sale', p.id
      FROM paid p),
judged AS (SELECT g.*, p.id AS paid_id FROM given g LEFT JOIN single s ON s.n = g.n LEFT JOIN paid p ON p.id = s.id),
stored AS (
    INSERT INTO inbox (provider, event_key, body, headers, state, outcome, order_id, settled_at)
    SELECT g.provider, g.event_key, g.body, g.headers::jsonb, CASE WHEN g.paid_id IS NULL THEN 'new' ELSE 'settled' END,
           CASE WHEN g.paid_id IS NULL THEN '' ELSE 'paid' END, g.paid_id, CASE WHEN g.paid_id IS NOT NULL THEN now() END
      FROM judged g WHERE NOT g.known
     ORDER BY g.provider, g.event_key  -- two batches with the same events wait for each other in one direction
    ON CONFLICT (provider, event_key) DO NOTHING
    RETURNING id, provider, event_key, order_id),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'deliver', p.id::text, jsonb_build_object('order_id', p.id) FROM paid p
    UNION ALL SELECT 'settle', i.id::text, jsonb_build_object('inbox_id', i.id, 'provider', i.provider, 'event_key', i.event_key,
           'invoice_id', g.invoice_id, 'claims', 'paid')
      FROM stored i JOIN given g USING (provider, event_key) WHERE i.order_id IS NULL AND NOT g.known
    RETURNING id, key)
SELECT g.n::int4 AS n, g.known, g.paid_id IS NOT NULL AS paid, o.id AS outbox_id
  FROM judged g LEFT JOIN stored i ON i.provider = g.provider AND i.event_key = g.event_key AND NOT g.known
  LEFT JOIN owed o ON o.key = coalesce(g.paid_id::text, i.id::text)
 ORDER BY g.n;
