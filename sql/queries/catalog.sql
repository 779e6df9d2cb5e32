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

-- name: add_seller :one Id
-- A seller is known.
-- $1 name text
INSERT INTO sellers (name) VALUES ($1) RETURNING id;

-- name: add_product :one Id
-- A product is on the shelf (a counted one shows as sold out until it has units).
-- $1 seller_id        int8
-- $2 title            text
-- $3 description      text
-- $4 category         text
-- $5 kind             text
-- $6 currency         text
-- $7 list_price_minor int8
-- $8 discount_bp      int4
-- $9 duration_days    int4  -- may be null
-- $10 lead_time_h     int4  -- for what is made to order
INSERT INTO products (seller_id, title, description, category, kind, currency, list_price_minor, discount_bp,
                      duration_days, lead_time_h)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
RETURNING id;
