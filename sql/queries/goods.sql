-- name: read_goods :many Sealed
-- Every unit of this user's order: what was delivered, still sealed, and what is still owed.
-- $1 order_id uuid
-- $2 user_id  int8
SELECT i.position, i.product_id, i.title, i.kind, i.state, i.due_at, i.delivered_at, i.stock_item_id,
       CASE WHEN i.state = 'delivered' THEN coalesce(s.sealed, m.sealed, g.sealed) END AS sealed
  FROM orders o
  JOIN order_items i ON i.order_id = o.id
  LEFT JOIN stock_items s ON s.id = i.stock_item_id
  LEFT JOIN made_goods m ON m.order_id = i.order_id AND m.position = i.position
  LEFT JOIN shared_goods g ON g.product_id = i.product_id AND i.kind = 'shared'
 WHERE o.id = $1 AND o.user_id = $2
 ORDER BY i.position;

-- name: share_good :one Shared
-- Every buyer of this product gets this content; a later one replaces it.
-- $1 product_id int8
-- $2 sealed     bytea
INSERT INTO shared_goods (product_id, sealed) VALUES ($1, $2)
ON CONFLICT (product_id) DO UPDATE SET sealed = excluded.sealed
RETURNING product_id;

-- name: hand_over :opt Handed
-- What a seller made for one position is its buyer's, who is owed the news; when nothing else is owed, the order is
-- delivered. No row: nothing is owed there, or it is not this user's to give.
-- $1 user_id  int8
-- $2 order_id uuid
-- $3 position int4
-- $4 sealed   bytea
WITH target AS (
    SELECT o.id, o.status FROM orders o JOIN users u ON u.id = $1
     WHERE o.id = $2 AND o.paid_by IS NOT NULL AND o.status <> 'refunded' AND (u.role = 'admin' OR u.role = 'seller' AND u.seller_id = o.seller_id)
       FOR UPDATE OF o),
given AS (
    UPDATE order_items i SET state = 'delivered', delivered_at = now() FROM target t
     WHERE i.order_id = t.id AND i.position = $3 AND i.kind = 'made' AND i.state = 'owed'
    RETURNING i.order_id AS id),
kept AS (
    INSERT INTO made_goods (order_id, position, sealed, user_id) SELECT g.id, $3, $4, $1 FROM given g),
waiting AS (  -- locked, and so read anew: another line may have been handed over while this waited for the order
    SELECT i.position FROM order_items i, target t
     WHERE i.order_id = t.id AND i.position <> $3 AND i.state = 'owed' FOR UPDATE OF i),
became AS (
    SELECT t.id, t.status AS before, CASE WHEN t.status = 'preorder' AND NOT EXISTS (SELECT FROM waiting)
           THEN 'delivered' ELSE t.status END AS status FROM target t JOIN given g USING (id)),
moved AS (
    UPDATE orders o SET status = b.status, delivered_at = coalesce(o.delivered_at, CASE b.status WHEN 'delivered' THEN now() END)
      FROM became b WHERE o.id = b.id),
noted AS (
    INSERT INTO order_events (order_id, from_status, to_status, role, user_id, note)
    SELECT b.id, b.before, b.status, 'seller', $1, 'position ' || $3::int4 || ' handed over' FROM became b),
owed AS (
    INSERT INTO outbox (kind, key, aggregate, payload)
    SELECT 'tell', b.id || ':made:' || $3::int4, 'tell:' || b.id,
           jsonb_build_object('order_id', b.id, 'status', 'delivered') FROM became b
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id),
ranked AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'rank', b.id || ':made:' || $3::int4, jsonb_build_object('order_id', b.id) FROM became b
    ON CONFLICT (kind, key) DO NOTHING)
SELECT b.status, (SELECT id FROM owed) AS outbox_id FROM became b;
