-- name: claim_emails :many Due
-- Mails that are due are this attempt's until the lease ends, the longest due first; what others are taking is left to
-- them. An attempt that nobody heard of again leaves its id in the row: its worker died.
-- $1 attempt_id uuid
-- $2 lease_s    int4
-- $3 size       int8
WITH due AS (
    SELECT o.id FROM outbox o
     WHERE o.kind = 'email' AND o.state = 'owed' AND o.run_at > '-infinity' AND o.run_at <= now()
       AND (o.lease_until IS NULL OR o.lease_until < now())
     ORDER BY o.run_at LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE outbox o SET attempts = o.attempts + 1, attempt_id = $1, lease_until = now() + $2::int * interval '1 second',
                    orphaned = CASE WHEN o.attempt_id IS NULL THEN 0 ELSE o.orphaned + 1 END
  FROM due WHERE o.id = due.id
RETURNING o.id, o.payload::text AS payload, o.attempts, o.orphaned,
          (extract(epoch FROM now() - o.run_at) * 1000)::int8 AS late_ms, o.created_at;

-- name: extend_emails :many Kept
-- The attempt is alive and keeps the lease of those mails that are still its own.
-- $1 ids        int8[]
-- $2 attempt_id uuid
-- $3 lease_s    int4
UPDATE outbox SET lease_until = now() + $3::int * interval '1 second'
 WHERE id = ANY ($1) AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: return_emails :many Kept
-- Those mails that are still the attempt's were not tried: they are free again from a later moment, with all their tries.
-- $1 ids        int8[]
-- $2 attempt_id uuid
-- $3 delay_ms   int4
UPDATE outbox SET lease_until = NULL, attempt_id = NULL, run_at = now() + $3::int * interval '1 millisecond',
                  attempts = greatest(attempts - 1, 0)
 WHERE id = ANY ($1) AND attempt_id = $2 AND state = 'owed'
RETURNING id;

-- name: owe_emails :many Owed
-- The buyer is owed a mail with this news, and with those that wait behind it for their turn in Telegram, each once; none
-- without a confirmed address.
-- $1 tell_id  int8  -- the outbox row of the news
-- $2 order_id uuid
INSERT INTO outbox (kind, key, payload)
SELECT 'email', 'tell:' || t.key, t.payload
  FROM orders o JOIN users u ON u.id = o.user_id AND u.email IS NOT NULL,
       LATERAL (SELECT n.key, n.payload FROM outbox n WHERE n.id = $1
                UNION
                SELECT n.key, n.payload FROM outbox n
                 WHERE n.aggregate = 'tell:' || o.id AND n.state = 'owed' AND n.kind = 'tell') t
 WHERE o.id = $2
ON CONFLICT (kind, key) DO NOTHING
RETURNING id;

-- name: list_news :many News
-- What mails about these orders say, and to whom. OFFSET 0: each user is looked up by the id; joined, or asked for an
-- address, all users would be read where they are few, or hardly any has one.
-- $1 order_ids uuid[]
SELECT o.id, o.number, o.currency, o.total_minor, o.lines::text AS lines, u.language, u.email,
       o.total_minor - least(o.credited_minor, coalesce((SELECT b.balance_minor FROM balances b
           WHERE b.user_id = o.user_id AND b.currency = o.currency), 0)) AS due_minor
  FROM orders_with_lines o, LATERAL (SELECT w.language, w.email FROM users w WHERE w.id = o.user_id OFFSET 0) u
 WHERE o.id = ANY ($1);

-- name: list_asked :many Asked
-- Addresses of these users that wait to be confirmed; `digest` tells for which of several mails with a link.
-- $1 user_ids int8[]
SELECT u.id, u.email_asked, md5(u.email_asked) AS digest, u.language FROM users u WHERE u.id = ANY ($1) AND u.email_asked IS NOT NULL;

-- name: get_email :opt Addresses
-- Where the user wants mail, and which address is still to be confirmed.
-- $1 user_id int8
SELECT u.email, u.email_asked FROM users u WHERE u.id = $1;

-- name: ask_email :opt Asking
-- The address waits to be confirmed, instead of any that waited before, and is owed the mail with the link; nothing is
-- to be confirmed and nothing owed where it is the user's already.
-- $1 user_id   int8
-- $2 address   text
-- $3 expires_s int8  -- Unix seconds, of the link
WITH asked AS (
    UPDATE users SET email_asked = CASE WHEN email = $2 THEN NULL ELSE $2 END WHERE id = $1
    RETURNING id, email, email_asked),
owed AS (
    INSERT INTO outbox (kind, key, payload)
    SELECT 'email', concat_ws(':', 'confirm', a.id, $3::int8, md5($2)),
           jsonb_build_object('user_id', a.id, 'digest', md5($2), 'expires_s', $3::int8)  -- the address itself would stay
      FROM asked a WHERE a.email_asked IS NOT NULL
    ON CONFLICT (kind, key) DO NOTHING
    RETURNING id)
SELECT a.email, a.email_asked, (SELECT id FROM owed) AS outbox_id FROM asked a;

-- name: forget_email :opt Addresses
-- The user gets no mail, and none is asked whether to.
-- $1 user_id int8
UPDATE users SET email = NULL, email_asked = NULL WHERE id = $1
RETURNING email, email_asked;

-- name: find_asking :opt Reader
-- Who is to confirm this address, or has done so; not `good` when it was withdrawn or another one was given.
-- $1 user_id int8
-- $2 address text
SELECT u.language, coalesce(u.email_asked = $2, false) OR coalesce(u.email = $2, false) AS good FROM users u WHERE u.id = $1;

-- name: confirm_email :opt Reader
-- The user's news go to this address; not `good`, and nothing changes, when it was withdrawn or another one was given.
-- $1 user_id int8
-- $2 address text
WITH confirmed AS (
    UPDATE users SET email = $2, email_asked = nullif(email_asked, $2) WHERE id = $1 AND (email_asked = $2 OR email = $2)
    RETURNING id)
SELECT u.language, EXISTS (SELECT FROM confirmed) AS good FROM users u WHERE u.id = $1;
