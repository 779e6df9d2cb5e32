-- name: read_figures :many Figure
-- What waits and since when, by short indexes, and how long the newest orders took; ages in ms. A figure that nothing
-- is counted for has no row, or one with zero.
WITH jobs AS MATERIALIZED (
    SELECT j.kind, j.key, j.state, j.run_at,
           j.run_at <= now() AND (j.lease_until IS NULL OR j.lease_until < now()) AS due
      FROM outbox j WHERE j.state = 'owed' AND j.run_at > '-infinity'
    UNION ALL
    SELECT d.kind, d.key, d.state, d.run_at, false FROM outbox d WHERE d.state = 'dead' AND d.id > 0),
by_kind AS (
    SELECT j.kind, count(*) FILTER (WHERE j.state = 'owed') AS owed, count(*) FILTER (WHERE j.state = 'dead') AS dead,
           coalesce(max(now() - j.run_at) FILTER (WHERE j.due), '0') AS oldest
      FROM jobs j GROUP BY j.kind),
-- A paid order's delivery is a job until it is done (decision 0001), and nothing else tells what waits for it.
undelivered AS (
    SELECT count(*) AS orders, coalesce(max(now() - o.paid_at), '0') AS oldest
      FROM (SELECT CASE WHEN j.key ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN j.key::uuid END AS id
              FROM jobs j WHERE j.kind = 'deliver') d
      JOIN orders o ON o.id = d.id
     WHERE o.paid_at IS NOT NULL AND o.status NOT IN ('cancelled', 'refunded')),
polls AS (
    SELECT count(*) AS payments, coalesce(max(now() - p.poll_at), '0') AS oldest FROM payments p WHERE p.poll_at <= now()),
steps AS (  -- each order by one look at its key: a join might read all of them
    SELECT s.step, s.took FROM (SELECT * FROM order_events ORDER BY id DESC LIMIT 2000) e, LATERAL (
           SELECT o.created_at, o.paid_at FROM orders o WHERE o.id = e.order_id LIMIT 1) o, LATERAL (
           SELECT 'reserved_to_paid' AS step, e.at - o.created_at AS took WHERE e.to_status = 'paid'
           UNION ALL
           SELECT 'paid_to_delivered', e.at - o.paid_at WHERE e.from_status = 'paid' AND e.role = 'system') s
     WHERE e.at > now() - interval '5 minutes' AND e.from_status IS DISTINCT FROM e.to_status),
lags AS (
    SELECT s.step, count(*) AS orders, percentile_disc(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY s.took) AS took
      FROM steps s GROUP BY s.step),
ages (figure, of, age) AS (
    SELECT 'oldest', k.kind, k.oldest FROM by_kind k
    UNION ALL SELECT 'undelivered_oldest', '', u.oldest FROM undelivered u
    UNION ALL SELECT 'to_poll_oldest', '', p.oldest FROM polls p
    UNION ALL SELECT 'took_half', l.step, l.took[1] FROM lags l
    UNION ALL SELECT 'took_most', l.step, l.took[2] FROM lags l)
SELECT a.figure, a.of, greatest(0, extract(epoch FROM a.age) * 1000)::int8 AS value FROM ages a
UNION ALL SELECT 'owed', k.kind, k.owed FROM by_kind k
UNION ALL SELECT 'dead', k.kind, k.dead FROM by_kind k
UNION ALL SELECT 'undelivered', '', u.orders FROM undelivered u
UNION ALL SELECT 'to_poll', '', p.payments FROM polls p
UNION ALL SELECT 'review', '', count(*) FROM inbox i WHERE i.state = 'review'
UNION ALL SELECT 'took', l.step, l.orders FROM lags l;

-- name: count_sales :many Sales
-- What was paid for today (UTC) and within the last seven days, less what went back, by currency.
-- $1 from_id uuid  -- no order of the last eight days has a lower one: ids ascend with time
SELECT o.currency, count(*) FILTER (WHERE o.paid_at >= d.midnight) AS today_orders,
       coalesce(sum(o.total_minor - o.refunded_minor) FILTER (WHERE o.paid_at >= d.midnight), 0)::int8 AS today_minor,
       count(*) AS week_orders, sum(o.total_minor - o.refunded_minor)::int8 AS week_minor
  FROM orders o, (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS midnight) d
 WHERE o.id >= $1 AND o.paid_at > now() - interval '7 days'
 GROUP BY o.currency ORDER BY o.currency;

-- name: count_talks :one Talks
-- Conversations in which somebody has written within six hours, and those that a human has.
SELECT (SELECT count(*) FROM conversations c WHERE c.heard_at > now() - interval '6 hours') AS active,
       (SELECT count(*) FROM conversations c WHERE c.escalated_at IS NOT NULL) AS escalated;

-- name: list_scarce :many Scarce
-- Products that are for sale and of which so few are left or less, the scarcest first.
-- $1 most int4
-- $2 size int8
SELECT p.id AS product_id, p.title, u.units
  FROM products p CROSS JOIN LATERAL (SELECT count(*)::int4 AS units FROM (
       SELECT FROM available_stock_with_discounts v WHERE v.product_id = p.id LIMIT $1 + 1) v) u
 WHERE p.active AND p.kind IN ('unit', 'shipped') AND u.units <= $1
 ORDER BY u.units, p.id LIMIT $2;
