-- name: enter_customer :one Customer
-- The Telegram user is known, with the name of this visit, and its language unless they have chosen one, and can be told
-- again; admins are those that the settings name.
-- $1 telegram_id int8
-- $2 name        text
-- $3 username    text
-- $4 language    text
-- $5 is_admin    bool
-- $6 referrer_id int8  -- who brought the user, for one who is new; may be null, or nobody
INSERT INTO users AS u (telegram_id, name, username, language, role, referrer_id)
VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN 'admin' ELSE 'buyer' END, (SELECT r.id FROM users r WHERE r.id = $6))
ON CONFLICT (telegram_id) DO UPDATE
   SET name = excluded.name, username = excluded.username, language = coalesce(u.chosen_language, excluded.language),
       seen_at = now(), blocked_at = NULL,
       role = CASE WHEN $5 THEN 'admin' WHEN u.role = 'admin' THEN 'buyer' ELSE u.role END
RETURNING id, name, role;

-- name: choose_language :opt Chosen
-- The user is told everything in this language, whatever Telegram reports from now on.
-- $1 user_id  int8
-- $2 language text
UPDATE users SET language = $2, chosen_language = $2 WHERE id = $1
RETURNING language;

-- name: find_recipient :opt Recipient
-- Whom to tell about an order; a WhatsApp user, with when they last wrote.
-- $1 order_id uuid
-- $2 phone_id text  -- the id of our WhatsApp number
SELECT u.id AS user_id, u.telegram_id, u.whatsapp,
       CASE WHEN u.whatsapp IS NOT NULL THEN (
           SELECT c.heard_at FROM conversations c JOIN channels h ON h.id = c.channel_id
            WHERE h.kind = 'whatsapp' AND h.external_id = $2 AND c.peer = u.whatsapp) END AS heard_at,
       u.language, o.number, o.currency, o.status,
       o.total_minor - least(o.credited_minor, coalesce((SELECT b.balance_minor FROM balances b
           WHERE b.user_id = o.user_id AND b.currency = o.currency), 0)) AS due_minor,
       u.blocked_at IS NOT NULL AS blocked, u.email IS NOT NULL AS mailed
  FROM orders o JOIN users u ON u.id = o.user_id WHERE o.id = $1;

-- name: list_admins :many Colleague
-- These admins, with the language of those who have been here.
-- $1 telegram_ids int8[]
SELECT t.id AS telegram_id, coalesce(u.language, 'en') AS language
  FROM unnest($1::bigint[]) AS t (id) LEFT JOIN users u ON u.telegram_id = t.id;

-- name: list_suppliers :many Colleague
-- Who supplies what this order sells: its seller's people.
-- $1 order_id uuid
SELECT u.telegram_id, u.language FROM orders o JOIN users u ON u.seller_id = o.seller_id AND u.role = 'seller'
 WHERE o.id = $1 AND u.telegram_id IS NOT NULL;

-- name: list_people :many Colleague
-- Who acts for a seller.
-- $1 seller_id int8
SELECT u.telegram_id, u.language FROM users u WHERE u.seller_id = $1 AND u.role = 'seller' AND u.telegram_id IS NOT NULL;

-- name: get_writing :one Writing
-- When a phone last wrote to a WhatsApp number of ours.
-- $1 phone_id text  -- the id of our number
-- $2 phone    text
SELECT (SELECT c.heard_at FROM conversations c JOIN channels h ON h.id = c.channel_id
         WHERE h.kind = 'whatsapp' AND h.external_id = $1 AND c.peer = $2) AS heard_at;

-- name: wake_news :many Woken
-- A WhatsApp user has written: the news that waited for that are due.
-- $1 phone text
UPDATE outbox n SET run_at = now()
  FROM users u JOIN orders o ON o.user_id = u.id
 WHERE u.whatsapp = $1 AND n.aggregate = 'tell:' || o.id AND n.state = 'owed' AND n.kind = 'tell'
   AND n.attempt_id IS NULL AND n.run_at > now()
RETURNING n.id, n.attempts + (extract(epoch FROM n.run_at - n.created_at) * 1000)::int8 AS turn;

-- name: retire_customer :opt Retired
-- The user has stopped the bot, or never started it, and is not told any more.
-- $1 telegram_id int8
UPDATE users SET blocked_at = now() WHERE telegram_id = $1 AND blocked_at IS NULL
RETURNING id;
