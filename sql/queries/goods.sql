-- name: read_goods :many Sealed
-- Every unit of this user's order: what was delivered, still sealed, and what is still owed.
-- $1 order_id uuid
-- $2 user_id  int8
SELECT i.product_id, i.title, i.kind, i.state, i.due_at, i.delivered_at, i.stock_item_id,
       CASE WHEN i.state = 'delivered' THEN coalesce(s.sealed, g.sealed) END AS sealed
  FROM orders o
  JOIN order_items i ON i.order_id = o.id
  LEFT JOIN stock_items s ON s.id = i.stock_item_id
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
