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

-- name: quote_products :many Quote
-- What so many units of each product cost now: those that an order would claim, at the order's price (`create_order`
-- takes them in the same turn). Units as in `count_units`; price null: there are not so many. Unknown and inactive
-- products are absent.
-- $1 product_ids int8[]  -- distinct
-- $2 quantities  int4[]  -- one per product
SELECT p.id AS product_id, p.title, p.currency, w.quantity, CASE WHEN c.things = c.units THEN c.units END AS units,
       CASE WHEN c.things > c.units THEN c.first_minor * w.quantity WHEN c.units >= w.quantity THEN c.first_minor END
       AS price_minor
  FROM unnest($1::bigint[], $2::int[]) AS w (product_id, quantity)
 CROSS JOIN LATERAL (  -- LIMIT 1 keeps each look a look at one product
       SELECT a.id, a.title, a.currency FROM products a WHERE a.id = w.product_id AND a.active LIMIT 1) p
 CROSS JOIN LATERAL (
       SELECT count(*)::int AS things, count(v.stock_item_id)::int AS units,
              sum(v.final_price_minor) FILTER (WHERE v.place <= w.quantity)::bigint AS first_minor
         FROM (SELECT a.stock_item_id, a.final_price_minor,
                      row_number() OVER (ORDER BY a.item_discount_bp DESC, a.received_at, a.stock_item_id) AS place
                 FROM available_stock_with_discounts a WHERE a.product_id = w.product_id) v) c;
