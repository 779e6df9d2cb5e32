-- name: place_products :many Place
-- Whose these products are and how they are fulfilled; unknown and inactive ones are absent.
-- $1 product_ids int8[]
SELECT p.id AS product_id, p.seller_id, p.kind, p.currency FROM products p WHERE p.id = ANY ($1) AND p.active;

-- name: list_products :many Product
-- A page of the shelf in the order of ids.
-- $1 query    text    -- empty: all; else a part of the title or the description
-- $2 category text    -- empty: all
-- $3 after    int8  -- the last id of the page before; 0: from the start
-- $4 size     int8
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h
  FROM shelf p
 WHERE p.id > $3
   AND ($2 = '' OR p.category = $2)
   AND ($1 = '' OR strpos(lower(p.title || ' ' || p.description), lower($1)) > 0)
 ORDER BY p.id
 LIMIT $4;

-- name: get_product :opt Product
-- One product of the shelf.
-- $1 product_id int8
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h
  FROM shelf p
 WHERE p.id = $1;

-- name: list_categories :many Category
-- Every category with something on the shelf.
SELECT DISTINCT p.category AS name FROM products p WHERE p.active ORDER BY 1;
