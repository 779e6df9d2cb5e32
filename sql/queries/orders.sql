-- name: create_order :opt Created
-- One order with its claimed units, its audit line and its payment about to be opened, or nothing at all.
-- No row: not every line can be had, or this user has used this key before, or has no slot for another unpaid order, or
-- may not use the promo code (any more), or it would not cost what was offered. Prices come from the view alone; a code
-- that makes nothing cheaper is not used.
-- $1 order_id        uuid
-- $2 user_id         int8
-- $3 seller_id       int8
-- $4 product_ids     int8[]  -- distinct
-- $5 quantities      int4[]     -- pieces, one per product
-- $6 idempotency_key text
-- $7 request_hash    bytea     -- sha256
-- $8 window_s        int4
-- $9 provider        text
-- $10 most_pending   int4      -- unpaid orders that one buyer may have
-- $11 promo          text      -- upper case; empty: none
-- $12 offered_minor  int8      -- the only total at which the order is made; 0: any
WITH slots AS (  -- by chance, so that orders of one buyer at the same time seldom want the same one
    SELECT n FROM generate_series(1, $10::int) n WHERE NOT EXISTS (
        SELECT FROM orders o WHERE o.user_id = $2 AND o.status = 'pending' AND o.slot = n) ORDER BY random() LIMIT 1),
promo AS (  -- locked before any unit is, so that who waits here keeps none from others
    SELECT p.id, p.slot FROM open_promos p
     WHERE p.code = $11 AND (p.seller_id IS NULL OR p.seller_id = $3) AND (p.product_id IS NULL OR p.product_id = ANY ($4))
       AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2 AND o.promo_id = p.id AND o.promo_slot = p.slot
                          AND (o.status NOT IN ('expired', 'cancelled') OR o.paid_at IS NOT NULL))
     ORDER BY random() LIMIT 1 FOR UPDATE),
wanted AS (
    SELECT w.product_id, w.quantity FROM slots, unnest($4::bigint[], $5::int[]) AS w (product_id, quantity)
     WHERE ($11 = '' OR EXISTS (SELECT FROM promo))
       AND NOT EXISTS (SELECT FROM orders o WHERE o.user_id = $2 AND o.idempotency_key = $6)),
claimed AS (
    SELECT c.id FROM wanted w CROSS JOIN LATERAL (
        SELECT s.id FROM stock_items s
         WHERE s.product_id = w.product_id AND s.state = 'available' AND (s.expires_at IS NULL OR s.expires_at > now())
           AND (s.sealed IS NOT NULL OR (SELECT p.kind FROM products p WHERE p.id = w.product_id) = 'shipped')
         ORDER BY s.discount_bp DESC, s.received_at, s.id LIMIT w.quantity FOR UPDATE SKIP LOCKED) c),
-- LIMIT 1 keeps each look a look at one product: as a plain join the whole shelf is read for every order.
picked AS (
    SELECT v.* FROM claimed c CROSS JOIN LATERAL (
        SELECT a.* FROM stock_with_promos a WHERE a.stock_item_id = c.id AND a.code = $11 LIMIT 1) v
    UNION ALL
    SELECT v.* FROM wanted w CROSS JOIN LATERAL (
        SELECT a.* FROM stock_with_promos a WHERE a.product_id = w.product_id AND a.stock_item_id IS NULL AND a.code = $11
         LIMIT 1) v CROSS JOIN generate_series(1, w.quantity)),
fits AS (
    SELECT sum(p.price_minor)::bigint AS total_minor, min(p.currency) AS currency,
           bool_or(p.price_minor < p.final_price_minor) AS cheaper FROM picked p
    HAVING count(*) = (SELECT sum(w.quantity) FROM wanted w) AND sum(p.price_minor) > 0 AND min(p.seller_id) = $3
       AND max(p.seller_id) = $3 AND min(p.currency) = max(p.currency) AND $12::bigint IN (0, sum(p.price_minor))),
made AS (
    INSERT INTO orders (id, user_id, seller_id, currency, total_minor, idempotency_key, request_hash, expires_at, slot,
                        promo_id, promo_slot)
    SELECT $1, $2, $3, f.currency, f.total_minor, $6, $7, now() + $8::int * interval '1 second', s.n, r.id, r.slot
      FROM fits f CROSS JOIN slots s LEFT JOIN promo r ON f.cheaper
    ON CONFLICT DO NOTHING  -- on the key, or on a slot
    RETURNING id, number, currency, total_minor, expires_at, promo_id),
used AS (UPDATE promos p SET uses = p.uses + 1 FROM made m WHERE p.id = m.promo_id),
held AS (UPDATE stock_items s SET state = 'held' FROM made m WHERE s.id = ANY (ARRAY(SELECT p.stock_item_id FROM picked p))),
lines AS (
    INSERT INTO order_items (order_id, position, product_id, title, kind, stock_item_id, list_price_minor, price_minor)
    SELECT m.id, row_number() OVER (ORDER BY p.product_id, p.received_at, p.stock_item_id), p.product_id, p.title,
           p.kind, p.stock_item_id, p.list_price_minor, p.price_minor FROM picked p, made m),
noted AS (INSERT INTO order_events (order_id, to_status, role, user_id) SELECT m.id, 'pending', 'buyer', $2 FROM made m),
opening AS (
    INSERT INTO payments (order_id, provider, amount_minor, currency)
    SELECT m.id, $9, m.total_minor, m.currency FROM made m WHERE $9 <> 'balance' RETURNING id)
SELECT m.number, m.currency, m.total_minor, m.expires_at, now() AS opened_at, coalesce(y.id, 0) AS payment_id
  FROM made m LEFT JOIN opening y ON true;

-- name: find_repeat :opt Repeat
-- The order that this user's key made.
-- $1 user_id         int8
-- $2 idempotency_key text
SELECT o.id AS order_id, o.request_hash FROM orders o WHERE o.user_id = $1 AND o.idempotency_key = $2;

-- name: count_pending :one Pending
-- How many of this user's unpaid orders have a slot.
-- $1 user_id      int8
-- $2 most_pending int4
SELECT count(*)::int AS orders FROM orders o WHERE o.user_id = $1 AND o.status = 'pending' AND o.slot <= $2::int;

-- name: get_order :opt Order
-- One order of this user with its lines and its latest payment.
-- $1 order_id uuid
-- $2 user_id  int8
SELECT o.id, o.number, o.status, o.currency, o.total_minor, o.created_at, o.expires_at, o.paid_at, o.delivered_at,
       o.lines::text AS lines, o.credited_minor, o.refunded_minor, p.provider AS payment_provider,
       p.status AS payment_status, p.url AS payment_url, p.amount_minor AS payment_minor
  FROM orders_with_lines o
  LEFT JOIN LATERAL (SELECT y.provider, y.status, y.url, y.amount_minor FROM payments y WHERE y.order_id = o.id
                      ORDER BY (y.status = 'paid') DESC, y.id DESC LIMIT 1) p ON true
 WHERE o.id = $1 AND o.user_id = $2;

-- name: link_order :opt Order
-- The payment that this caller opens has its invoice and link; no row when the order is no longer pending, or the
-- opening no longer this caller's, or the invoice is booked already because it was paid faster than this.
-- $1 order_id   uuid
-- $2 provider   text
-- $3 invoice_id text
-- $4 url        text
-- $5 opened_at  timestamptz  -- whose turn it is
WITH target AS (
    SELECT o.id FROM orders o WHERE o.id = $1 AND o.status = 'pending' FOR UPDATE),
linked AS (
    UPDATE payments p SET status = 'open', invoice_id = $3, url = $4, poll_at = now() + interval '20 seconds'
      FROM target t
     WHERE p.order_id = t.id AND p.provider = $2 AND p.status = 'opening' AND p.opened_at = $5
       AND NOT EXISTS (SELECT FROM payments x WHERE x.provider = $2 AND x.invoice_id = $3)
    RETURNING p.order_id, p.provider, p.status, p.url, p.amount_minor)
SELECT o.id, o.number, o.status, o.currency, o.total_minor, o.created_at, o.expires_at, o.paid_at, o.delivered_at,
       o.lines::text AS lines, o.credited_minor, o.refunded_minor, l.provider AS payment_provider,
       l.status AS payment_status, l.url AS payment_url, l.amount_minor AS payment_minor
  FROM linked l JOIN orders_with_lines o ON o.id = l.order_id;

-- name: list_orders :many Order
-- This user's orders, the newest first.
-- $1 user_id int8
-- $2 before  int8  -- order number; only older ones
-- $3 size    int8
SELECT o.id, o.number, o.status, o.currency, o.total_minor, o.created_at, o.expires_at, o.paid_at, o.delivered_at,
       o.lines::text AS lines, o.credited_minor, o.refunded_minor, p.provider AS payment_provider,
       p.status AS payment_status, p.url AS payment_url, p.amount_minor AS payment_minor
  FROM orders_with_lines o
  LEFT JOIN LATERAL (SELECT y.provider, y.status, y.url, y.amount_minor FROM payments y WHERE y.order_id = o.id
                      ORDER BY (y.status = 'paid') DESC, y.id DESC LIMIT 1) p ON true
 WHERE o.user_id = $1 AND o.number < $2
 ORDER BY o.number DESC
 LIMIT $3;

-- name: deliver_order :opt Delivered
-- A paid order's goods are its buyer's, and what follows from that is owed: the buyer's message, the bonuses, the
-- seller's and the admins' notice, the leaderboard. No row when the job is no longer ours or the order is not paid (any
-- more). What must be made or shipped stays owed.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 order_id   uuid
-- $4 lease_s    int4
-- $5 follows    text[]  -- kinds of the jobs that every sale owes
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.id, o.status FROM orders o, mine
     WHERE o.id = $3 AND o.paid_at IS NOT NULL AND o.status NOT IN ('cancelled', 'refunded') FOR UPDATE OF o),
lines AS (
    UPDATE order_items i
       SET state = CASE WHEN i.kind IN ('unit', 'shared') THEN 'delivered' ELSE 'owed' END,
           delivered_at = CASE WHEN i.kind IN ('unit', 'shared') THEN now() END,
           due_at = now() + p.lead_time_h * interval '1 hour'
      FROM target t, products p
     WHERE i.order_id = t.id AND p.id = i.product_id AND i.state = 'held'
    RETURNING i.kind, i.stock_item_id),
sold AS (
    UPDATE stock_items s SET state = 'sold' FROM lines l WHERE s.id = l.stock_item_id),
became AS (
    SELECT t.id, t.status AS before, CASE WHEN bool_or(l.kind = 'made') THEN 'preorder'
           WHEN bool_or(l.kind = 'shipped') THEN 'paid' ELSE 'delivered' END AS status
      FROM target t, lines l GROUP BY t.id, t.status),
moved AS (
    UPDATE orders o SET status = CASE b.before WHEN 'paid' THEN b.status ELSE b.before END,
           delivered_at = coalesce(o.delivered_at, CASE WHEN b.status = 'delivered' THEN now() END)
      FROM became b WHERE o.id = b.id),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role)
    SELECT b.id, b.before, b.status, 'system' FROM became b WHERE b.status <> 'paid' AND b.before = 'paid'),
owed AS (
    INSERT INTO outbox (kind, key, payload, aggregate, attempts, attempt_id, lease_until)
    SELECT 'tell', b.id || ':' || b.status, jsonb_build_object('order_id', b.id, 'status', b.status), 'tell:' || b.id, f.n,
           CASE f.n WHEN 1 THEN $2 END, CASE f.n WHEN 1 THEN now() + $4::int * interval '1 second' END
      FROM became b, LATERAL (  -- this attempt goes on with it, unless an earlier message about the order is owed
           SELECT 1 - count(*)::int AS n FROM (
                  SELECT FROM outbox e WHERE e.aggregate = 'tell:' || b.id AND e.state = 'owed' LIMIT 1) e) f
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id, attempt_id),
follows AS (
    INSERT INTO outbox (kind, key, payload, aggregate)  -- also when its goods were handed over before it was paid
    SELECT k.kind, t.id::text, jsonb_build_object('order_id', t.id, 'word', 'sold'),
           CASE k.kind WHEN 'announce' THEN 'announce:' || t.id END FROM target t, unnest($5::text[]) AS k (kind)
    ON CONFLICT (kind, key) DO NOTHING)
SELECT b.status, (SELECT id FROM owed WHERE attempt_id IS NOT NULL) AS outbox_id FROM became b;

-- name: expire_orders :many Expired
-- Unpaid orders past their window (and the grace) are closed and their units are for sale again. An order whose
-- payment is said to have come waits until that is judged.
-- $1 grace_s int4
-- $2 size    int8
WITH late AS (
    SELECT o.id, o.seller_id, o.promo_id, o.promo_slot FROM orders o
     WHERE o.status = 'pending' AND o.expires_at > '-infinity' AND o.expires_at < now() - $1::int * interval '1 second'
       -- Counts, and not NOT EXISTS: an anti-join would read every unsettled event for each sweep.
       AND (SELECT count(*) FROM payments p JOIN outbox b ON b.payload ->> 'invoice_id' = p.invoice_id
             WHERE p.order_id = o.id AND b.kind = 'settle' AND b.state IN ('owed', 'dead')
               AND b.payload ->> 'provider' = p.provider AND b.payload ->> 'claims' = 'paid') = 0
     ORDER BY o.expires_at LIMIT $2 FOR UPDATE SKIP LOCKED),
closed AS (
    UPDATE orders o SET status = 'expired' FROM late l WHERE o.id = l.id),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role)
    SELECT l.id, 'pending', 'expired', 'system' FROM late l),
freed AS (
    UPDATE order_items i SET state = 'released' FROM late l WHERE i.order_id = l.id AND i.state = 'held'
    RETURNING i.order_id, i.product_id, i.stock_item_id),
back AS (
    UPDATE stock_items s SET state = 'available' FROM freed f WHERE s.id = f.stock_item_id AND s.state = 'held'),
promos_back AS (  -- in the order of ids, so that sweeps side by side do not wait for each other
    SELECT p.id, b.uses FROM promos p JOIN (
        SELECT l.promo_id, count(*) AS uses FROM late l WHERE l.promo_slot IS NOT NULL GROUP BY l.promo_id) b
        ON b.promo_id = p.id ORDER BY p.id FOR UPDATE OF p),
unused AS (
    UPDATE promos p SET uses = p.uses - b.uses FROM promos_back b WHERE p.id = b.id)
SELECT l.id AS order_id, l.seller_id, array_agg(DISTINCT f.product_id) AS product_ids
  FROM late l JOIN freed f ON f.order_id = l.id GROUP BY l.id, l.seller_id;

-- name: revive_order :opt Freed
-- An expired order has units again, as many of each product as it had, at its own prices, for as long as its payment
-- needs to be booked; or nothing happened, because not all can be had.
-- $1 order_id uuid
-- $2 window_s int4
WITH target AS (
    SELECT o.id, o.seller_id FROM orders o WHERE o.id = $1 AND o.status = 'expired' FOR UPDATE),
lines AS (
    SELECT i.position, i.product_id, i.kind, p.active,
           row_number() OVER (PARTITION BY i.product_id ORDER BY i.position) AS n
      FROM order_items i JOIN products p ON p.id = i.product_id, target t
     WHERE i.order_id = t.id AND i.state = 'released'),
counted AS (
    SELECT l.product_id, count(*)::int AS quantity FROM lines l WHERE l.kind IN ('unit', 'shipped')
     GROUP BY l.product_id),
claimed AS (
    SELECT c.product_id, s.id FROM counted c CROSS JOIN LATERAL (
        SELECT u.id FROM stock_items u
         WHERE u.product_id = c.product_id AND u.state = 'available' AND (u.expires_at IS NULL OR u.expires_at > now())
         ORDER BY u.discount_bp DESC, u.received_at, u.id LIMIT c.quantity FOR UPDATE SKIP LOCKED) s),
paired AS (
    SELECT l.position, u.id FROM lines l
      LEFT JOIN (SELECT c.product_id, c.id, row_number() OVER (PARTITION BY c.product_id) AS n FROM claimed c) u
        ON u.product_id = l.product_id AND u.n = l.n),
fits AS (
    SELECT t.id, t.seller_id FROM target t
     WHERE EXISTS (SELECT FROM lines) AND NOT EXISTS (
           SELECT FROM lines l JOIN paired p USING (position)
            WHERE NOT l.active OR (l.kind IN ('unit', 'shipped')) <> (p.id IS NOT NULL))),
held AS (
    UPDATE stock_items s SET state = 'held' FROM fits, claimed c WHERE s.id = c.id),
back AS (
    UPDATE order_items i SET state = 'held', stock_item_id = p.id FROM fits f, paired p
     WHERE i.order_id = f.id AND i.position = p.position),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, note)
    SELECT f.id, 'expired', 'pending', 'system', 'paid late, its goods claimed again' FROM fits f)
UPDATE orders o SET status = 'pending', slot = NULL, promo_slot = NULL, expires_at = now() + $2::int * interval '1 second'
  FROM fits f WHERE o.id = f.id
RETURNING o.seller_id, (SELECT coalesce(array_agg(c.product_id), '{}') FROM counted c) AS product_ids;

-- name: follow_refund :opt Freed
-- What a refund has in its train, once for each sum: goods that are not delivered are for sale again when all money
-- went back, and buyer, bonuses, leaderboard and (where goods are out of reach) admins are owed their job.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 order_id   uuid
-- $4 word       text    -- refund or chargeback
-- $5 follows    text[]  -- kinds of the jobs that every refund owes
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.id, o.seller_id, o.refunded_minor, o.refunded_minor = o.total_minor AS whole, o.currency
      FROM orders o, mine WHERE o.id = $3 FOR UPDATE OF o),
freed AS (
    UPDATE order_items i SET state = 'released' FROM target t
     WHERE i.order_id = t.id AND t.whole AND i.state IN ('held', 'owed')
    RETURNING i.product_id, i.stock_item_id),
back AS (
    UPDATE stock_items s SET state = 'available' FROM freed f
     WHERE s.id = f.stock_item_id AND s.state IN ('held', 'sold')),
kept AS (
    SELECT count(*)::int AS items FROM order_items i, target t WHERE i.order_id = t.id AND i.state = 'delivered'),
owed AS (
    INSERT INTO outbox (kind, key, payload, aggregate)
    SELECT k.kind, t.id || ':' || $4 || ':' || t.refunded_minor, jsonb_build_object('order_id', t.id, 'word', $4::text,
           'status', $4::text, 'amount_minor', t.refunded_minor, 'currency', t.currency,
           'delivered', (SELECT items FROM kept)), CASE k.kind WHEN 'tell' THEN 'tell:' || t.id END
      FROM target t, unnest($5::text[]) AS k (kind)
    ON CONFLICT (kind, key) DO NOTHING)
SELECT t.seller_id, (SELECT coalesce(array_agg(DISTINCT f.product_id), '{}') FROM freed f) AS product_ids FROM target t;

-- name: list_supplied :many Supplied
-- What an order sold, as its seller reads it; what must be made has the moment by which.
-- $1 order_id uuid
SELECT o.number, i.title, count(*)::int AS quantity, i.due_at
  FROM orders o JOIN order_items i ON i.order_id = o.id
 WHERE o.id = $1 AND i.state <> 'released'
 GROUP BY o.number, i.title, i.due_at ORDER BY min(i.position);

-- name: find_paid :opt PaidBy
-- Which provider's invoice paid this order.
-- $1 order_id uuid
SELECT o.paid_by FROM orders o WHERE o.id = $1 AND o.paid_by IS NOT NULL;
