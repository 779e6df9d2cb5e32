-- name: list_savings :many Saving
-- What everybody has saved against list prices since a moment, in one currency; who saved nothing is not in it.
-- $1 currency text
-- $2 since    timestamptz
SELECT o.user_id, sum(i.list_price_minor - i.price_minor)::int8 AS saved_minor
  FROM order_items i JOIN orders o ON o.id = i.order_id
 WHERE i.state = 'delivered' AND i.delivered_at >= $2 AND o.currency = $1 AND o.paid_at IS NOT NULL AND o.status <> 'refunded'
 GROUP BY o.user_id HAVING sum(i.list_price_minor - i.price_minor) > 0;

-- name: sum_savings :many Standing
-- What this order's buyer has saved in its currency, on each board of this moment; nothing is 0.
-- $1 order_id uuid
SELECT b.board, t.user_id, t.currency, coalesce(sum(i.list_price_minor - i.price_minor) FILTER (
           WHERE i.state = 'delivered' AND o.paid_at IS NOT NULL AND o.status <> 'refunded' AND i.delivered_at >= b.since), 0)::int8 AS saved_minor
  FROM orders t
 CROSS JOIN (VALUES ('all', '-infinity'::timestamptz),
           (to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM'), date_trunc('month', now(), 'UTC')),
           (to_char(now() AT TIME ZONE 'UTC', 'IYYY-"W"IW'), date_trunc('week', now(), 'UTC'))) AS b (board, since)
  JOIN orders o ON o.user_id = t.user_id AND o.currency = t.currency
  JOIN order_items i ON i.order_id = o.id
 WHERE t.id = $1
 GROUP BY b.board, t.user_id, t.currency ORDER BY b.board;

-- name: list_best :many Saver
-- The best of one board, as it is built from this statement's savings when Redis has none: the highest first.
-- $1 currency text
-- $2 since    timestamptz
-- $3 size     int8
SELECT s.user_id, s.saved_minor, u.name
  FROM (SELECT o.user_id, sum(i.list_price_minor - i.price_minor)::int8 AS saved_minor
          FROM order_items i JOIN orders o ON o.id = i.order_id
         WHERE i.state = 'delivered' AND i.delivered_at >= $2 AND o.currency = $1 AND o.paid_at IS NOT NULL AND o.status <> 'refunded'
         GROUP BY o.user_id HAVING sum(i.list_price_minor - i.price_minor) > 0
         ORDER BY saved_minor DESC, o.user_id::text COLLATE "C" DESC LIMIT $3) s
  JOIN users u ON u.id = s.user_id
 ORDER BY s.saved_minor DESC, s.user_id::text COLLATE "C" DESC;

-- name: sum_own :one Own
-- What this user has saved since a moment, in one currency.
-- $1 user_id  int8
-- $2 currency text
-- $3 since    timestamptz
SELECT coalesce(sum(i.list_price_minor - i.price_minor), 0)::int8 AS saved_minor
  FROM orders o JOIN order_items i ON i.order_id = o.id
 WHERE o.user_id = $1 AND o.currency = $2 AND o.paid_at IS NOT NULL AND o.status <> 'refunded' AND i.state = 'delivered' AND i.delivered_at >= $3;

-- name: name_users :many Named
-- What these users are called.
-- $1 user_ids int8[]
SELECT u.id AS user_id, u.name FROM users u WHERE u.id = ANY ($1::bigint[]);
