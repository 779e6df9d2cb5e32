-- name: put_line :opt Line
-- So many units of a product are put aside for this user, in the place of what was put aside of it before: as many as are
-- for sale at this moment, if that is less. No row: none is, or the user has as many other lines as one may have.
-- $1 user_id    int8
-- $2 product_id int8
-- $3 quantity   int4
-- $4 most_lines int4
WITH there AS (
    SELECT count(*)::int AS things, count(v.stock_item_id)::int AS units
      FROM available_stock_with_discounts v WHERE v.product_id = $2)
INSERT INTO cart_lines (user_id, product_id, quantity)
SELECT $1, $2, CASE WHEN t.things = t.units THEN least($3::int, t.units) ELSE $3::int END
  FROM there t
 WHERE t.things > 0
   AND (SELECT count(*) FROM cart_lines c WHERE c.user_id = $1 AND c.product_id <> $2) < $4::int
ON CONFLICT (user_id, product_id) DO UPDATE SET quantity = excluded.quantity
RETURNING product_id, quantity;

-- name: take_lines :many Line
-- What was put aside for this user is handed out and gone, in the order in which it came.
-- $1 user_id int8
WITH taken AS (DELETE FROM cart_lines WHERE user_id = $1 RETURNING product_id, quantity, added_at)
SELECT t.product_id, t.quantity FROM taken t ORDER BY t.added_at, t.product_id;
