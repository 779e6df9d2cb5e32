-- name: shelve_units :one Shelved
-- All of a batch is on the shelf, or nothing of it, with the audit line and the refresh; the word says why not.
-- `known` lists what the product had before, by position; such units are left out only when the caller asked for that.
-- A batch with a key comes once: repeated, with what its line in `changes` says of the first, or reused by anything else.
-- $1 user_id         int8           -- null: at the machine, then `note` says by whose hands
-- $2 product_id      int8
-- $3 kind            text           -- what such units are for: unit (with secrets) or shipped (without)
-- $4 ids             uuid[]
-- $5 sealed          bytea[]
-- $6 fingerprints    bytea[]
-- $7 discounts       int4[]
-- $8 expiries        timestamptz[]
-- $9 skip_duplicates bool
-- $10 dry_run        bool           -- judge it, write nothing
-- $11 note           jsonb          -- what the audit line says besides
-- $12 batch          text           -- the user's Idempotency-Key; may be null
-- $13 request_hash   bytea          -- sha256 of the request that it belongs to; null when there is no key
WITH who AS (
    SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1
    UNION ALL SELECT 'admin', NULL WHERE $1::bigint IS NULL AND $11::jsonb ->> 'by' <> ''),
target AS (
    SELECT p.id, p.kind, p.seller_id, w.role
      FROM products p JOIN who w ON w.role = 'admin' OR p.seller_id = w.seller_id WHERE p.id = $2),
earlier AS (
    SELECT c.request_hash, (c.what ->> 'added')::int AS units, c.known FROM changes c WHERE c.user_id = $1 AND c.batch = $12),
given AS (
    SELECT u.* FROM unnest($4::uuid[], $5::bytea[], $6::bytea[], $7::int[], $8::timestamptz[])
           WITH ORDINALITY AS u (id, sealed, fingerprint, discount_bp, expires_at, position)),
known AS (
    SELECT g.position::int AS position FROM target t CROSS JOIN given g CROSS JOIN LATERAL (
        SELECT s.id FROM stock_items s WHERE s.product_id = t.id AND s.fingerprint = g.fingerprint LIMIT 1) s),
fresh AS (
    SELECT g.* FROM target t CROSS JOIN given g
     WHERE t.kind = $3 AND NOT EXISTS (SELECT FROM earlier)
       AND g.position NOT IN (SELECT k.position FROM known k) AND ($9::bool OR NOT EXISTS (SELECT FROM known))),
-- A key or a secret that somebody else adds at this moment fails the statement as a whole: the caller tries again, and
-- sees it. The line comes first, so that a repeat waits there and not behind thousands of units.
noted AS (
    INSERT INTO changes (user_id, role, noun, noun_id, what, batch, request_hash, known)
    SELECT $1, t.role, 'stock', t.id, $11::jsonb || jsonb_build_object('added', (SELECT count(*) FROM fresh)),
           $12, $13, CASE WHEN $12::text IS NOT NULL THEN ARRAY(SELECT k.position FROM known k ORDER BY 1) END
      FROM target t WHERE NOT $10::bool AND EXISTS (SELECT FROM fresh)
    RETURNING noun_id),
added AS (
    INSERT INTO stock_items (id, product_id, sealed, fingerprint, discount_bp, expires_at)
    SELECT f.id, n.noun_id, f.sealed, f.fingerprint, f.discount_bp, f.expires_at FROM noted n CROSS JOIN fresh f
     ORDER BY f.fingerprint),  -- two batches of the same secrets lock them in the same order
owed AS (
    INSERT INTO outbox (kind, key, payload) SELECT 'refresh', pg_current_xact_id()::text, '{}' FROM noted
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN e.request_hash <> $13 THEN 'reused'
            WHEN t.id IS NULL THEN 'missing'
            WHEN t.kind <> $3 THEN 'unfit'
            WHEN e.units IS NOT NULL THEN 'repeated'
            WHEN NOT $9 AND EXISTS (SELECT FROM known) THEN 'duplicates'
            ELSE 'shelved' END AS word,
       t.kind, coalesce(e.units, (SELECT count(*)::int FROM fresh)) AS units,
       coalesce(e.known, ARRAY(SELECT k.position FROM known k ORDER BY 1)) AS known,
       t.seller_id, (SELECT id FROM owed) AS outbox_id
  FROM (VALUES (1)) one LEFT JOIN target t ON true LEFT JOIN earlier e ON true;

-- name: withdraw_units :one Withdrawn
-- Those of the named units that are for sale no longer are, with the audit line and the refresh; what is held or sold stays.
-- $1 user_id    int8
-- $2 product_id int8
-- $3 ids        uuid[]
WITH who AS (SELECT s.role, s.seller_id FROM staff s WHERE s.user_id = $1),
target AS (
    SELECT p.id, p.seller_id, w.role
      FROM products p JOIN who w ON w.role = 'admin' OR p.seller_id = w.seller_id WHERE p.id = $2),
here AS (
    SELECT s.id FROM stock_items s JOIN target t ON t.id = s.product_id
     WHERE s.id = ANY ($3) AND s.state = 'available' ORDER BY s.id FOR UPDATE OF s),
gone AS (
    UPDATE stock_items s SET state = 'withdrawn' FROM here h WHERE s.id = h.id RETURNING s.id),
noted AS (
    INSERT INTO changes (user_id, role, noun, noun_id, what)
    SELECT $1, t.role, 'stock', t.id, jsonb_build_object('withdrawn', (SELECT jsonb_agg(g.id ORDER BY g.id) FROM gone g))
      FROM target t WHERE EXISTS (SELECT FROM gone)),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'refresh', pg_current_xact_id()::text, '{}' WHERE EXISTS (SELECT FROM gone)
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT CASE WHEN NOT EXISTS (SELECT FROM who) THEN 'forbidden'
            WHEN t.id IS NULL THEN 'missing'
            ELSE 'withdrawn' END AS word,
       ARRAY(SELECT g.id FROM gone g ORDER BY g.id) AS ids, t.seller_id, (SELECT id FROM owed) AS outbox_id
  FROM (VALUES (1)) one LEFT JOIN target t ON true;

-- name: list_units :opt Page
-- A page of a product's units, the newest first, without what is sealed in them; no row when the product is not the user's.
-- $1 user_id    int8
-- $2 product_id int8
-- $3 state      text  -- empty: any
-- $4 before     uuid  -- the last id of the page before; only older ones
-- $5 size       int8
SELECT (SELECT coalesce(json_agg(l ORDER BY l.id DESC), '[]')
          FROM (SELECT s.id, s.state, s.received_at, s.expires_at, s.discount_bp,
                       left(encode(s.fingerprint, 'hex'), 12) AS fingerprint
                  FROM stock_items s
                 WHERE s.product_id = p.id AND s.id < $4 AND ($3 = '' OR s.state = $3)
                 ORDER BY s.id DESC LIMIT $5) l)::text AS units
  FROM products p JOIN staff w ON w.role = 'admin' OR p.seller_id = w.seller_id
 WHERE p.id = $2 AND w.user_id = $1;
