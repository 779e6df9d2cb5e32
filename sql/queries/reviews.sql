-- name: put_review :one Put
-- This user's review of this product is as given and the product's rating counts it, or the word says why not.
-- `conflict`: another review was counted after this statement's snapshot was taken; nothing is written, try again.
-- $1 product_id int8
-- $2 user_id    int8
-- $3 rating     int4
-- $4 text       text
WITH proof AS (
    SELECT i.order_id FROM orders o JOIN order_items i ON i.order_id = o.id
     WHERE o.user_id = $2 AND i.product_id = $1 AND i.state = 'delivered' AND o.status <> 'refunded'
       AND o.paid_at IS NOT NULL
     ORDER BY i.delivered_at LIMIT 1),
mine AS (
    SELECT r.rating, r.text FROM reviews r WHERE r.product_id = $1 AND r.user_id = $2),
seen AS (
    SELECT coalesce(max(a.version), 0) AS version, coalesce(max(a.ratings), 0) AS ratings,
           coalesce(max(a.total), 0) AS total FROM product_ratings a WHERE a.product_id = $1),
wanted AS (
    SELECT f.order_id, s.version + 1 AS version, s.ratings + (m.rating IS NULL)::int AS ratings,
           s.total + $3::int - coalesce(m.rating, 0) AS total, m.rating IS DISTINCT FROM $3 AS shows
      FROM proof f CROSS JOIN seen s LEFT JOIN mine m ON true
     WHERE (m.rating, m.text) IS DISTINCT FROM ($3::int, $4::text)),
-- The only lock there is: whoever waited here for another's commit meets a version that it has not seen.
rated AS (
    INSERT INTO product_ratings AS a (product_id, ratings, total, version)
    SELECT $1, w.ratings, w.total, w.version FROM wanted w
    ON CONFLICT (product_id) DO UPDATE
       SET ratings = excluded.ratings, total = excluded.total, version = excluded.version
     WHERE a.version = excluded.version - 1
    RETURNING a.ratings, a.total),
kept AS (
    INSERT INTO reviews AS r (product_id, user_id, order_id, rating, text)
    SELECT $1, $2, w.order_id, $3, $4 FROM wanted w CROSS JOIN rated
    ON CONFLICT (product_id, user_id) DO UPDATE
       SET order_id = excluded.order_id, rating = excluded.rating, text = excluded.text, edited_at = now()),
owed AS (  -- once in ten seconds of each buyer: nobody ends the catalog's whole cache again and again by rating
    INSERT INTO outbox (kind, key, payload)
    SELECT 'refresh', 'stars:' || $2::bigint || ':' || floor(extract(epoch FROM now()) / 10), '{}' FROM wanted w CROSS JOIN rated WHERE w.shows
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id),
thanked AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'cashback', $1::bigint || ':' || $2::bigint, jsonb_build_object('product_id', $1::bigint, 'user_id', $2::bigint)
      FROM rated WHERE NOT EXISTS (SELECT FROM mine) ON CONFLICT (kind, key) DO NOTHING)
SELECT CASE WHEN NOT EXISTS (SELECT FROM products p WHERE p.id = $1 AND (p.active OR EXISTS (SELECT FROM proof)))
            THEN 'unknown'
            WHEN NOT EXISTS (SELECT FROM proof) THEN 'unverified'
            WHEN NOT EXISTS (SELECT FROM wanted) THEN 'unchanged'
            WHEN r.ratings IS NULL THEN 'conflict'
            WHEN EXISTS (SELECT FROM mine) THEN 'edited'
            ELSE 'created' END AS word,
       coalesce(r.ratings, s.ratings) AS ratings, coalesce(r.total, s.total) AS total,
       (SELECT id FROM owed) AS outbox_id
  FROM seen s LEFT JOIN rated r ON true;

-- name: pay_cashback :opt Thanked
-- For the first review of a product its writer has a share of what the order behind it paid for it and kept paid, once;
-- what the writer owes us first. No row: the job is not ours, or nothing is due.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 product_id int8
-- $4 user_id    int8
-- $5 share_bp   int4
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.id, o.currency, o.total_minor, o.refunded_minor FROM mine, reviews r JOIN orders o ON o.id = r.order_id
     WHERE r.product_id = $3 AND r.user_id = $4 AND o.paid_by IS NOT NULL FOR UPDATE OF o),
due AS (
    SELECT t.id, t.currency, div(sum(i.price_minor) * $5::int * (t.total_minor - t.refunded_minor),
           10000::numeric * t.total_minor)::int8 AS amount_minor
      FROM target t JOIN order_items i ON i.order_id = t.id AND i.product_id = $3 AND i.state = 'delivered'
     GROUP BY t.id, t.currency, t.total_minor, t.refunded_minor),
known AS (
    SELECT b.debt_minor FROM balances b JOIN due d USING (currency) WHERE b.user_id = $4 FOR UPDATE OF b),
split AS (
    SELECT d.*, least(d.amount_minor, coalesce((SELECT k.debt_minor FROM known k), 0)) AS repaid_minor
      FROM due d WHERE d.amount_minor > 0),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT l.word || ':' || $3::int8 || ':' || $4::int8, 'bonuses', l.account || ':' || $4::int8, l.amount_minor, s.currency,
           l.reason, s.id, $4
      FROM split s CROSS JOIN LATERAL (VALUES ('cashback', 'buyer', s.amount_minor - s.repaid_minor, 'cashback'),
           ('cashback:repaid', 'debt', s.repaid_minor, 'repaid')) AS l (word, account, amount_minor, reason)
     WHERE l.amount_minor > 0),
moved AS (
    INSERT INTO balances AS b (user_id, currency, balance_minor)
    SELECT $4, s.currency, s.amount_minor - s.repaid_minor FROM split s
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor,
           debt_minor = b.debt_minor - (SELECT s.repaid_minor FROM split s))
SELECT s.amount_minor, s.repaid_minor FROM split s;

-- name: list_reviews :opt Page
-- The rating of a product on the shelf and a page of its reviews, the newest first.
-- $1 product_id int8
-- $2 before     int8  -- the last review of the page before; only older ones
-- $3 size       int8
SELECT coalesce(a.ratings, 0) AS ratings, coalesce(a.total, 0) AS total,
       (SELECT coalesce(json_agg(l ORDER BY l.id DESC), '[]')
          FROM (SELECT r.id, u.name, r.rating, r.text, r.created_at, r.edited_at
                  FROM reviews r JOIN users u ON u.id = r.user_id
                 WHERE r.product_id = p.id AND r.id < $2
                 ORDER BY r.id DESC LIMIT $3) l)::text AS reviews
  FROM products p LEFT JOIN product_ratings a ON a.product_id = p.id
 WHERE p.id = $1 AND p.active;
