-- name: count_units :many Count
-- How many units of each product can be sold now: 0 when there are none, null when it never runs out.
-- $1 product_ids int8[]
SELECT w.product_id, c.units
  FROM unnest($1::bigint[]) AS w (product_id)
 CROSS JOIN LATERAL (
       SELECT CASE WHEN count(v.product_id) = count(v.stock_item_id) THEN count(v.product_id)::int END AS units
         FROM available_stock_with_discounts v WHERE v.product_id = w.product_id) c;

-- name: list_sellers :many Seller
-- Everybody who may have counters.
SELECT s.id FROM sellers s ORDER BY s.id;
