-- name: judge_promo :one Judged
-- Why this buyer cannot use this code for this cart now; an empty word: it can be used.
-- $1 code        text
-- $2 user_id     int8
-- $3 seller_id   int8    -- of the cart
-- $4 product_ids int8[]
SELECT CASE WHEN p.id IS NULL OR NOT p.active THEN 'unknown'
            WHEN p.seller_id <> $3 OR p.product_id <> ALL ($4::bigint[]) THEN 'foreign'
            WHEN p.starts_at > now() THEN 'not_yet'
            WHEN p.ends_at <= now() THEN 'ended'
            WHEN (SELECT count(*) FROM orders o WHERE o.user_id = $2 AND o.promo_id = p.id AND o.promo_slot <= p.per_user
                     AND (o.status NOT IN ('expired', 'cancelled') OR o.paid_at IS NOT NULL)) >= p.per_user THEN 'used'
            WHEN p.uses >= p.most_uses THEN 'exhausted'
            ELSE '' END AS reason
  FROM (VALUES (1)) one LEFT JOIN promos p ON p.code = $1;

-- name: create_promo :one Entered
-- A new code with its audit line, or the word says why not.
-- $1 user_id int8
-- $2 fields  jsonb  -- every column that is given at the start; seller_id may be null: a seller's own, an admin's for all
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
given AS (
    SELECT n.*, w.role, w.seller_id AS own_id,
           CASE w.role WHEN 'seller' THEN coalesce(n.seller_id, w.seller_id) ELSE n.seller_id END AS whose_id
      FROM who w CROSS JOIN jsonb_populate_record(NULL::promos, $2) n),
judged AS (
    SELECT g.*, CASE
           WHEN g.role = 'seller' AND g.whose_id <> g.own_id
             OR g.whose_id IS NOT NULL AND NOT EXISTS (SELECT FROM sellers s WHERE s.id = g.whose_id) THEN 'no_seller'
           WHEN g.product_id IS NOT NULL AND NOT EXISTS (SELECT FROM products p WHERE p.id = g.product_id
                AND (g.whose_id IS NULL OR p.seller_id = g.whose_id)) THEN 'no_product'
           ELSE 'taken' END AS word
      FROM given g),
made AS (
    INSERT INTO promos (code, discount_bp, most_uses, per_user, starts_at, ends_at, active, seller_id, product_id)
    SELECT j.code, j.discount_bp, j.most_uses, j.per_user, coalesce(j.starts_at, now()), j.ends_at, j.active, j.whose_id,
           j.product_id FROM judged j WHERE j.word = 'taken'
    ON CONFLICT (code) DO NOTHING
    RETURNING id, seller_id),
noted AS (
    INSERT INTO changes (user_id, role, noun, promo_id, what)
    SELECT $1, j.role, 'promo', m.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', NULL, 'new', f.value))
             FROM jsonb_each($2 || jsonb_build_object('seller_id', m.seller_id)) f)
      FROM made m CROSS JOIN judged j)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN EXISTS (SELECT FROM made) THEN 'created'
            ELSE (SELECT j.word FROM judged j) END AS word;

-- name: change_promo :one Changed
-- The given fields of a code are as given, with the audit line, or the word says why not.
-- $1 user_id int8
-- $2 code    text
-- $3 version int8   -- the one that the caller has seen
-- $4 fields  jsonb  -- only those to change; null clears
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
target AS (
    SELECT p.id, p.version, p.uses, to_jsonb(p) AS was, w.role
      FROM promos p JOIN who w ON w.role = 'admin' OR p.seller_id = w.seller_id
     WHERE p.code = $2 FOR UPDATE OF p),
becomes AS (
    SELECT t.*, to_jsonb(n) AS will, n.most_uses, n.starts_at, n.ends_at
      FROM target t CROSS JOIN jsonb_populate_record(NULL::promos, t.was || $4) n),
judged AS (
    SELECT b.*, CASE
           WHEN b.version <> $3 THEN 'stale'
           WHEN b.most_uses < b.uses OR b.ends_at <= b.starts_at THEN 'unfit'
           WHEN b.was = b.will THEN 'unchanged'
           ELSE 'changed' END AS word
      FROM becomes b),
changed AS (
    UPDATE promos p
       SET discount_bp = n.discount_bp, most_uses = n.most_uses, per_user = n.per_user, starts_at = n.starts_at,
           ends_at = n.ends_at, active = n.active, version = j.version + 1
      FROM judged j CROSS JOIN jsonb_populate_record(NULL::promos, j.will) n
     WHERE p.id = j.id AND j.word = 'changed'
    RETURNING p.id, p.version),
noted AS (
    INSERT INTO changes (user_id, role, noun, promo_id, what)
    SELECT $1, j.role, 'promo', c.id, (
           SELECT jsonb_object_agg(f.key, jsonb_build_object('old', j.was -> f.key, 'new', f.value))
             FROM jsonb_each(j.will) f WHERE j.was -> f.key IS DISTINCT FROM f.value)
      FROM changed c CROSS JOIN judged j)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden' ELSE coalesce(j.word, 'missing') END AS word,
       coalesce((SELECT version FROM changed), j.version) AS version
  FROM (VALUES (1)) one LEFT JOIN judged j ON true;

-- name: find_promo :opt Promo
-- One code as its staff see it; no row for a code, or a user, that has nothing to do with it.
-- $1 user_id int8
-- $2 code    text
SELECT p.id, p.code, p.discount_bp, p.most_uses, p.uses, p.per_user, p.starts_at, p.ends_at, p.active, p.seller_id,
       p.product_id, p.version, p.created_at
  FROM staff w JOIN promos p ON w.role = 'admin' OR p.seller_id = w.seller_id
 WHERE w.user_id = $1 AND p.code = $2;

-- name: list_promos :many Promo
-- A page of codes in the order of ids, as their staff see them.
-- $1 user_id int8
-- $2 after   int8  -- the last id of the page before; 0: from the start
-- $3 size    int8
SELECT p.id, p.code, p.discount_bp, p.most_uses, p.uses, p.per_user, p.starts_at, p.ends_at, p.active, p.seller_id,
       p.product_id, p.version, p.created_at
  FROM staff w JOIN promos p ON w.role = 'admin' OR p.seller_id = w.seller_id
 WHERE w.user_id = $1 AND p.id > $2
 ORDER BY p.id
 LIMIT $3;
