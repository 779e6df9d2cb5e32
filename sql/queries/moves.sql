-- name: move_order :opt Moved
-- An order is moved by one of those who may: audit line, goods, and everything that is owed for it, with the order as it
-- is then. No row: there is none that this user may see. Every word but `moved` has changed nothing.
-- $1 order_id   uuid
-- $2 user_id    int8
-- $3 to_status  text
-- $4 expected   text    -- the status that the caller has seen; empty: any
-- $5 note       text
-- $6 buyer_news text[]  -- statuses of which the buyer is told, when somebody else has moved the order there
WITH target AS (
    SELECT o.* FROM orders o WHERE o.id = $1
       AND EXISTS (SELECT FROM order_people p WHERE p.order_id = $1 AND p.user_id = $2) FOR UPDATE),
ways AS (
    SELECT m.role, EXISTS (
           SELECT FROM order_people p WHERE p.order_id = $1 AND p.user_id = $2 AND p.role = m.role) AS mine
      FROM target t JOIN order_moves m ON m.from_status = t.status AND m.to_status = $3),
moved AS (
    UPDATE orders o SET status = $3, delivered_at = CASE $3 WHEN 'delivered' THEN coalesce(o.delivered_at, now())
           ELSE o.delivered_at END
      FROM target t, (SELECT min(w.role) AS role FROM ways w WHERE w.mine) a
     WHERE o.id = t.id AND a.role IS NOT NULL AND $4 IN ('', t.status)
       AND t.status = (SELECT s.status FROM orders s WHERE s.id = $1)  -- else its goods are not what this statement sees
    RETURNING o.*, t.status AS before, a.role),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, user_id, note)
    SELECT m.id, m.before, m.status, m.role, $2, $5 FROM moved m RETURNING id, at),
unused AS (
    UPDATE promos p SET uses = p.uses - 1 FROM moved m
     WHERE $3 = 'cancelled' AND m.paid_at IS NULL AND p.id = m.promo_id AND m.promo_slot IS NOT NULL),
goods AS (
    UPDATE order_items i SET state = CASE $3 WHEN 'delivered' THEN 'delivered' ELSE 'released' END,
           delivered_at = CASE $3 WHEN 'delivered' THEN now() END
      FROM moved m WHERE i.order_id = m.id AND i.state IN ('held', 'owed') AND ($3 = 'cancelled'
        OR $3 = 'delivered' AND i.kind = 'shipped' OR $3 = 'completed' AND m.paid_at IS NULL)
    RETURNING i.product_id, i.stock_item_id),
shelf AS (
    UPDATE stock_items s SET state = CASE $3 WHEN 'delivered' THEN 'sold' ELSE 'available' END
      FROM goods g WHERE s.id = g.stock_item_id AND s.state IN ('held', 'sold')),
owed AS (
    INSERT INTO outbox (kind, key, payload, aggregate)
    SELECT k.kind, 'move:' || n.id, jsonb_build_object('event_id', n.id, 'order_id', m.id, 'status', 'moved_' || m.status,
           'word', m.status), CASE WHEN k.kind IN ('tell', 'announce') THEN k.kind || ':' || m.id END
      FROM moved m, noted n, LATERAL (VALUES ('announce', true), ('tell', m.role <> 'buyer' AND $3 = ANY ($6::text[])),
           ('inform', m.role = 'buyer' AND $3 IN ('delivered', 'cancelled')),
           ('repay', m.paid_by IS NOT NULL AND $3 = 'cancelled'),
           ('rank', $3 = 'delivered' AND m.paid_at IS NOT NULL)) AS k (kind, due) WHERE k.due
    RETURNING id)
SELECT c.id, c.number, coalesce(m.status, t.status) AS status, c.currency, c.total_minor, c.created_at, c.expires_at,
       c.paid_at, coalesce(m.delivered_at, t.delivered_at) AS delivered_at, c.lines, c.credited_minor, c.refunded_minor,
       c.payment_provider, c.payment_status, c.payment_url, c.payment_minor, c.buyer_id, c.buyer_name, c.history, c.chat,
       CASE WHEN m.id IS NOT NULL THEN 'moved'
            WHEN t.status <> (SELECT s.status FROM orders s WHERE s.id = $1) THEN 'raced' WHEN $4 NOT IN ('', t.status) THEN 'stale'
            WHEN EXISTS (SELECT FROM ways) THEN 'forbidden' ELSE 'refused' END AS word, t.status AS before,
       t.seller_id, n.id AS event_id, n.at AS moved_at, m.role, ARRAY(SELECT o.id FROM owed o) AS outbox_ids,
       ARRAY(SELECT DISTINCT g.product_id FROM goods g WHERE $3 <> 'delivered') AS product_ids
  FROM target t JOIN order_cards c ON c.id = t.id LEFT JOIN moved m ON true LEFT JOIN noted n ON true;

-- name: find_announced :opt Announced
-- An event of an order, and whom it concerns.
-- $1 event_id int8  -- null: that the order of $2 was paid
-- $2 order_id uuid
SELECT e.id, e.order_id, o.number, coalesce(e.from_status, '') AS before, e.to_status AS after, e.role, e.at,
       o.user_id AS buyer_id, ARRAY(SELECT s.user_id FROM staff s WHERE s.seller_id = o.seller_id) AS seller_ids
  FROM order_events e JOIN orders o ON o.id = e.order_id
 WHERE e.id = coalesce($1::bigint, (SELECT max(x.id) FROM order_events x
                                     WHERE x.order_id = $2 AND x.to_status = 'paid' AND x.from_status <> 'paid'));

-- name: chat_line :opt Said
-- A line in the order's chat about one of its events, once.
-- $1 order_id uuid
-- $2 event_id int8
-- $3 role     text
-- $4 line     text
INSERT INTO order_chat (order_id, event_id, role, text) VALUES ($1, $2, $3, $4)
ON CONFLICT (event_id) DO NOTHING
RETURNING id;

-- name: get_card :opt Card
-- An order with everything that belongs to it, for one who may see it.
-- $1 order_id uuid
-- $2 user_id  int8
SELECT c.id, c.number, o.status, c.currency, c.total_minor, c.created_at, c.expires_at, c.paid_at, o.delivered_at, c.lines,
       c.credited_minor, c.refunded_minor, c.payment_provider, c.payment_status, c.payment_url, c.payment_minor,
       c.buyer_id, c.buyer_name, c.history, c.chat
  FROM order_cards c JOIN orders o ON o.id = c.id
 WHERE c.id = $1 AND EXISTS (SELECT FROM order_people p WHERE p.order_id = $1 AND p.user_id = $2);
