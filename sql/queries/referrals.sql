-- name: reward_order :opt Rewarded
-- Whoever brought this order's buyer, and those above, have their share of it: once per order and level, what they owe
-- us first. An order that is partly refunded already owes its clawback too. No row: the job is not ours, or no bonus.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 order_id   uuid
-- $4 shares_bp  int4[]  -- of level 1, 2, 3; fewer: fewer levels
WITH RECURSIVE mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.id, o.user_id, o.total_minor, o.refunded_minor, o.currency FROM orders o, mine
     WHERE o.id = $3 AND o.paid_by IS NOT NULL AND o.refunded_minor < o.total_minor FOR UPDATE OF o),
above (level, user_id) AS (
    SELECT 1, u.referrer_id FROM target t JOIN users u ON u.id = t.user_id WHERE u.referrer_id IS NOT NULL
    UNION ALL
    SELECT a.level + 1, u.referrer_id FROM above a JOIN users u ON u.id = a.user_id
     WHERE a.level < cardinality($4::int[]) AND u.referrer_id IS NOT NULL),
made AS (
    INSERT INTO referral_bonuses (order_id, level, user_id, amount_minor, currency)
    SELECT t.id, a.level, a.user_id, s.amount_minor, t.currency
      FROM target t CROSS JOIN above a CROSS JOIN LATERAL (
           SELECT div(t.total_minor::numeric * ($4::int[])[a.level], 10000)::int8 AS amount_minor) s
     WHERE s.amount_minor > 0
    ON CONFLICT (order_id, level) DO NOTHING
    RETURNING order_id, level, user_id, amount_minor, currency),
known AS (
    SELECT b.user_id, b.debt_minor FROM balances b JOIN made m USING (user_id, currency)
     ORDER BY b.user_id FOR UPDATE OF b),
split AS (
    SELECT m.*, least(m.amount_minor, coalesce(k.debt_minor, 0)) AS repaid_minor
      FROM made m LEFT JOIN known k USING (user_id)),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT l.reason || ':' || s.order_id || ':' || s.level, 'bonuses', l.account || ':' || s.user_id, l.amount_minor,
           s.currency, l.reason, s.order_id, s.user_id
      FROM split s CROSS JOIN LATERAL (VALUES ('bonus', 'buyer', s.amount_minor - s.repaid_minor),
           ('repaid', 'debt', s.repaid_minor)) AS l (reason, account, amount_minor) WHERE l.amount_minor > 0),
moved AS (
    INSERT INTO balances AS b (user_id, currency, balance_minor)
    SELECT s.user_id, s.currency, s.amount_minor - s.repaid_minor FROM split s ORDER BY s.user_id
    ON CONFLICT (user_id, currency) DO UPDATE SET balance_minor = b.balance_minor + excluded.balance_minor,
           debt_minor = b.debt_minor - (SELECT s.repaid_minor FROM split s WHERE s.user_id = b.user_id)),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'clawback', t.id || ':reward:' || t.refunded_minor, jsonb_build_object('order_id', t.id)
      FROM target t WHERE t.refunded_minor > 0 AND EXISTS (SELECT FROM made) ON CONFLICT (kind, key) DO NOTHING)
SELECT count(*)::int AS levels, sum(m.amount_minor)::int8 AS amount_minor FROM made m HAVING count(*) > 0;

-- name: claw_back :opt Clawed
-- Of each bonus of this order so much is back as of the order's money is: all of it when that is all. What its owner has
-- spent of it is a debt. No row: the job is not ours, or nothing was to be taken.
-- $1 outbox_id  int8
-- $2 attempt_id uuid
-- $3 order_id   uuid
WITH mine AS (
    UPDATE outbox SET state = 'done', done_at = now() WHERE id = $1 AND attempt_id = $2 AND state = 'owed' RETURNING id),
target AS (
    SELECT o.id, o.total_minor, o.refunded_minor FROM orders o, mine WHERE o.id = $3 FOR UPDATE OF o),
earned AS (
    SELECT r.* FROM referral_bonuses r, target t WHERE r.order_id = t.id ORDER BY r.user_id FOR UPDATE OF r),
due AS (
    SELECT e.order_id, e.level, e.user_id, e.currency, d.target_minor, d.target_minor - e.clawed_minor AS back_minor
      FROM earned e, target t CROSS JOIN LATERAL (
           SELECT div(e.amount_minor::numeric * t.refunded_minor, t.total_minor)::int8 AS target_minor) d
     WHERE d.target_minor > e.clawed_minor),
held AS (
    SELECT b.user_id, b.balance_minor FROM balances b JOIN due d USING (user_id, currency)
     ORDER BY b.user_id FOR UPDATE OF b),
split AS (
    SELECT d.*, least(d.back_minor, coalesce(h.balance_minor, 0)) AS taken_minor
      FROM due d LEFT JOIN held h USING (user_id)),
marked AS (
    UPDATE referral_bonuses r SET clawed_minor = s.target_minor FROM split s
     WHERE r.order_id = s.order_id AND r.level = s.level),
posted AS (
    INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, user_id)
    SELECT l.word || ':' || s.order_id || ':' || s.level || ':' || s.target_minor, l.account || ':' || s.user_id, 'bonuses',
           l.amount_minor, s.currency, 'clawback', s.order_id, s.user_id
      FROM split s CROSS JOIN LATERAL (VALUES ('clawed', 'buyer', s.taken_minor),
           ('lent', 'debt', s.back_minor - s.taken_minor)) AS l (word, account, amount_minor) WHERE l.amount_minor > 0),
moved AS (
    INSERT INTO balances AS b (user_id, currency, debt_minor)
    SELECT s.user_id, s.currency, s.back_minor - s.taken_minor FROM split s ORDER BY s.user_id
    ON CONFLICT (user_id, currency) DO UPDATE SET debt_minor = b.debt_minor + excluded.debt_minor,
           balance_minor = b.balance_minor - (SELECT s.taken_minor FROM split s WHERE s.user_id = b.user_id))
SELECT sum(s.taken_minor)::int8 AS taken_minor, sum(s.back_minor - s.taken_minor)::int8 AS lent_minor FROM split s
HAVING count(*) > 0;

-- name: count_invited :many Invited
-- How many people this user has brought, by level.
-- $1 user_id int8
WITH RECURSIVE below (level, user_id) AS (
    SELECT 1, u.id FROM users u WHERE u.referrer_id = $1
    UNION ALL
    SELECT b.level + 1, u.id FROM below b JOIN users u ON u.referrer_id = b.user_id WHERE b.level < 3)
SELECT b.level, count(*)::int8 AS people FROM below b GROUP BY b.level ORDER BY b.level;

-- name: sum_earned :many Earned
-- What this user's bonuses come to, by level and currency.
-- $1 user_id int8
SELECT r.level, r.currency, sum(r.amount_minor)::int8 AS earned_minor, sum(r.clawed_minor)::int8 AS clawed_minor
  FROM referral_bonuses r WHERE r.user_id = $1 GROUP BY r.level, r.currency ORDER BY r.level, r.currency;
