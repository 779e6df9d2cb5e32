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

-- name: add_units :one Added
-- Units are on the shelf; a secret that this product already had is left out.
-- $1 product_id   int8
-- $2 ids          uuid[]
-- $3 sealed       bytea[]  -- null members: pieces without a secret
-- $4 fingerprints bytea[]
WITH added AS (
    INSERT INTO stock_items (id, product_id, sealed, fingerprint)
    SELECT u.id, $1, u.sealed, u.fingerprint FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS u (id, sealed, fingerprint)
     ORDER BY u.fingerprint  -- two imports of the same secrets lock them in the same order
    ON CONFLICT (product_id, fingerprint) DO NOTHING
    RETURNING id)
SELECT count(*)::int AS units FROM added;
