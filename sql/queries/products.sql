-- name: create_product :one Entered
-- A new product with its audit line and the refresh that the shelf is owed, or the word says why not.
-- $1 user_id   int8
-- $2 seller_id int8   -- may be null: a seller's own
-- $3 fields    jsonb  -- every column that is given at the start
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
owner AS (
    SELECT s.id, w.role FROM who w JOIN sellers s ON s.id = coalesce($2, w.seller_id)
     WHERE w.role = 'admin' OR s.id = w.seller_id),
made AS (
    INSERT INTO products (seller_id, title, description, category, kind, currency, list_price_minor, discount_bp,
                          duration_days, lead_time_h, active)
    SELECT o.id, n.title, n.description, n.category, n.kind, n.currency, n.list_price_minor, n.discount_bp,
           n.duration_days, n.lead_time_h, n.active
      FROM owner o CROSS JOIN jsonb_populate_record(NULL::products, $3) n
    RETURNING id, seller_id),
noted AS (
    INSERT INTO changes (user_id, role, noun, noun_id, what)
    SELECT $1, o.role, 'product', m.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', NULL, 'new', f.value))
             FROM jsonb_each($3 || jsonb_build_object('seller_id', m.seller_id)) f)
      FROM made m CROSS JOIN owner o),
owed AS (
    INSERT INTO outbox (kind, key, payload) SELECT 'refresh', pg_current_xact_id()::text, '{}' FROM made
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN NOT EXISTS (SELECT FROM owner) THEN 'no_seller'
            ELSE 'created' END AS word,
       (SELECT id FROM made) AS product_id, (SELECT id FROM owed) AS outbox_id;

-- name: change_product :one Changed
-- The given fields of a product are as given, with the audit line and the refresh, or the word says why not.
-- $1 user_id    int8
-- $2 product_id int8
-- $3 version    int8   -- the one that the caller has seen
-- $4 fields     jsonb  -- only those to change; null clears
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
target AS (
    SELECT p.id, p.kind, p.version, to_jsonb(p) AS was, w.role
      FROM products p JOIN who w ON w.role = 'admin' OR p.seller_id = w.seller_id
     WHERE p.id = $2 FOR UPDATE OF p),
judged AS (
    SELECT t.*, CASE
           WHEN t.version <> $3 THEN 'stale'
           WHEN (t.kind = 'made') <> (((t.was || $4::jsonb) ->> 'lead_time_h') IS NOT NULL) THEN 'unfit'
           WHEN t.was @> $4 THEN 'unchanged'
           ELSE 'changed' END AS word
      FROM target t),
changed AS (
    UPDATE products p
       SET title = n.title, description = n.description, category = n.category, active = n.active,
           list_price_minor = n.list_price_minor, discount_bp = n.discount_bp, duration_days = n.duration_days,
           lead_time_h = n.lead_time_h, version = j.version + 1
      FROM judged j CROSS JOIN jsonb_populate_record(NULL::products, j.was || $4) n
     WHERE p.id = j.id AND j.word = 'changed'
    RETURNING p.id, p.version),
noted AS (
    INSERT INTO changes (user_id, role, noun, noun_id, what)
    SELECT $1, j.role, 'product', c.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', j.was -> f.key, 'new', f.value))
             FROM jsonb_each($4) f WHERE j.was -> f.key IS DISTINCT FROM f.value)
      FROM changed c CROSS JOIN judged j),
owed AS (
    INSERT INTO outbox (kind, key, payload) SELECT 'refresh', pg_current_xact_id()::text, '{}' FROM changed
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' ELSE coalesce(j.word, 'missing') END AS word,
       coalesce((SELECT version FROM changed), j.version) AS version, (SELECT id FROM owed) AS outbox_id
  FROM (VALUES (1)) one LEFT JOIN judged j ON true;

-- name: share_content :one Changed
-- Every buyer of this shared product gets this content, with the audit line and the refresh, or the word says why not.
-- $1 user_id    int8
-- $2 product_id int8
-- $3 sealed     bytea
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
target AS (
    SELECT p.id, p.kind, p.version, w.role
      FROM products p JOIN who w ON w.role = 'admin' OR p.seller_id = w.seller_id
     WHERE p.id = $2 FOR UPDATE OF p),
kept AS (
    INSERT INTO shared_goods (product_id, sealed) SELECT t.id, $3 FROM target t WHERE t.kind = 'shared'
    ON CONFLICT (product_id) DO UPDATE SET sealed = excluded.sealed
    RETURNING product_id),
noted AS (
    INSERT INTO changes (user_id, role, noun, noun_id, what)
    SELECT $1, t.role, 'product', t.id, jsonb_build_object('content', jsonb_build_object('old', (
           SELECT 'sealed' FROM shared_goods g WHERE g.product_id = t.id), 'new', 'sealed'))
      FROM target t JOIN kept k ON k.product_id = t.id),
owed AS (
    INSERT INTO outbox (kind, key, payload) SELECT 'refresh', pg_current_xact_id()::text, '{}' FROM kept
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN t.id IS NULL THEN 'missing'
            WHEN t.kind <> 'shared' THEN 'unfit'
            ELSE 'changed' END AS word,
       t.version, (SELECT id FROM owed) AS outbox_id
  FROM (VALUES (1)) one LEFT JOIN target t ON true;

-- name: find_card :opt Card
-- One product as its staff see it; no row for a product, or a user, that has nothing to do with it.
-- $1 user_id    int8
-- $2 product_id int8
SELECT a.id, a.seller_id, a.seller_name, a.title, a.description, a.category, a.kind, a.currency, a.list_price_minor,
       a.discount_bp, a.duration_days, a.lead_time_h, a.active, a.version, a.created_at, a.has_content, a.available,
       a.expired, a.held, a.sold, a.withdrawn
  FROM staff w JOIN assortment a ON w.role = 'admin' OR a.seller_id = w.seller_id
 WHERE w.user_id = $1 AND a.id = $2;

-- name: list_cards :many Card
-- A page of products in the order of ids, as their staff see them.
-- $1 user_id   int8
-- $2 query     text  -- empty: all; else a part of the title or the category
-- $3 seller_id int8  -- 0: of every seller that the user acts for
-- $4 active    bool  -- null: both
-- $5 after     int8  -- the last id of the page before; 0: from the start
-- $6 size      int8
SELECT a.id, a.seller_id, a.seller_name, a.title, a.description, a.category, a.kind, a.currency, a.list_price_minor,
       a.discount_bp, a.duration_days, a.lead_time_h, a.active, a.version, a.created_at, a.has_content, a.available,
       a.expired, a.held, a.sold, a.withdrawn
  FROM staff w JOIN assortment a ON w.role = 'admin' OR a.seller_id = w.seller_id
 WHERE w.user_id = $1 AND a.id > $5
   AND ($2 = '' OR strpos(lower(a.title || ' ' || a.category), lower($2)) > 0)
   AND ($3::bigint = 0 OR a.seller_id = $3)
   AND ($4::bool IS NULL OR a.active = $4)
 ORDER BY a.id
 LIMIT $6;
