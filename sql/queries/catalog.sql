-- name: place_products :many Place
-- Whose these products are and how they are fulfilled; unknown and inactive ones are absent.
-- $1 product_ids int8[]
SELECT p.id AS product_id, p.seller_id, p.kind, p.currency FROM products p WHERE p.id = ANY ($1) AND p.active;

-- name: list_products :many Product
-- A page of the shelf in the order of ids.
-- $1 category text  -- empty: all
-- $2 after    int8  -- the last id of the page before; 0: from the start
-- $3 size     int8
WITH page AS MATERIALIZED (  -- first which, then what is shown of these few
    SELECT f.id FROM products f
     WHERE f.active AND f.id > $2 AND ($1 = '' OR f.category = $1)
     ORDER BY f.id
     LIMIT $3
)
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h, p.ratings, p.rating_total
  FROM page f JOIN shelf p ON p.id = f.id
 ORDER BY p.id;

-- name: search_products :many Found
-- A page of what has every word, or a word that begins with it, or one of its stem; the best fit first, then by id.
-- A word of which the parser leaves nothing (it is no word in any language) is not asked for.
-- $1 words    text[]
-- $2 category text  -- empty: all
-- $3 rank     int4  -- of the last one of the page before; above 1000000: from the start
-- $4 after    int8  -- its id
-- $5 size     int8
WITH spelt AS (
    SELECT regexp_replace(w, '[^[:alnum:]]+', ' ', 'g') AS word FROM unnest($1::text[]) w
), asked AS MATERIALIZED (
    SELECT string_agg('(' || nullif(concat_ws(' | ',
               nullif(to_tsquery('pg_catalog.simple', '''' || s.word || ''':*')::text, ''),
               nullif(plainto_tsquery('pg_catalog.english', s.word)::text, ''),
               nullif(plainto_tsquery('pg_catalog.russian', s.word)::text, '')), '') || ')', ' & ')::tsquery AS query
      FROM spelt s
), ranked AS MATERIALIZED (
    SELECT r.id, (1000000 * ts_rank(r.search, (SELECT a.query FROM asked a)))::int4 AS rank
      FROM products r
     WHERE r.active AND r.search @@ (SELECT a.query FROM asked a) AND ($2 = '' OR r.category = $2)
), found AS (
    SELECT r.id, r.rank FROM ranked r
     WHERE r.rank < $3 OR r.rank = $3 AND r.id > $4
     ORDER BY r.rank DESC, r.id
     LIMIT $5
)
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h, p.ratings, p.rating_total, f.rank
  FROM found f JOIN shelf p ON p.id = f.id
 ORDER BY f.rank DESC, p.id;

-- name: resembling_products :many Product
-- What has a title with some words like these, the most alike first; for servers with pg_trgm.
-- $1 words    text
-- $2 category text  -- empty: all
-- $3 size     int8
WITH near AS (
    SELECT n.id, word_similarity($1, translate(n.title, 'ёЁ', 'еЕ')) AS likeness
      FROM products n
     WHERE n.active AND ($2 = '' OR n.category = $2)
     ORDER BY translate(n.title, 'ёЁ', 'еЕ') <->> $1
     LIMIT $3
)
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h, p.ratings, p.rating_total
  FROM near n JOIN shelf p ON p.id = n.id
 WHERE n.likeness >= 0.28  -- two letters swapped in a word of six
 ORDER BY n.likeness DESC, p.id;

-- name: know_likeness :one Likeness
-- Whether this server has what `resembling_products` needs.
SELECT to_regoperator('<->>(text,text)') IS NOT NULL AS known;

-- name: get_product :opt Product
-- One product of the shelf.
-- $1 product_id int8
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h, p.ratings, p.rating_total
  FROM shelf p
 WHERE p.id = $1;

-- name: get_products :many Product
-- These products of the shelf; those that are not there are absent.
-- $1 product_ids int8[]  -- distinct
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, p.seller_name, p.currency, p.list_price_minor,
       p.price_minor, p.discount_bp, p.units_left, p.lead_time_h, p.ratings, p.rating_total
  FROM unnest($1::bigint[]) AS w (product_id)
 CROSS JOIN LATERAL (SELECT s.* FROM shelf s WHERE s.id = w.product_id LIMIT 1) p;

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
