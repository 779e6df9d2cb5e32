-- name: list_changes :many Change
-- What staff changed, the newest first: everything for an admin, a seller's own products, codes and webhooks for a seller.
-- $1 user_id int8
-- $2 noun_id int8  -- 0: of all products
-- $3 before  int8  -- the last change of the page before; only older ones
-- $4 size    int8
SELECT c.id, c.at, c.user_id, u.name AS user_name, c.role, c.noun, c.noun_id, q.code AS promo, c.endpoint_id AS webhook_id,
       c.channel_id, c.what::text AS what
  FROM changes c
  LEFT JOIN products p ON p.id = c.noun_id
  LEFT JOIN promos q ON q.id = c.promo_id
  LEFT JOIN endpoints e ON e.id = c.endpoint_id
  JOIN staff w ON w.role = 'admin' OR coalesce(p.seller_id, q.seller_id, e.seller_id) = w.seller_id
  LEFT JOIN users u ON u.id = c.user_id
 WHERE w.user_id = $1 AND c.id < $3 AND ($2::bigint = 0 OR c.noun_id = $2)
 ORDER BY c.id DESC
 LIMIT $4;
