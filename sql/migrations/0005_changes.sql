-- Staff: who may act as such in one place, and what they add with an Idempotency-Key is added once.

-- Admins, who act on every product, and sellers of something, who act on its products.
CREATE VIEW staff AS
SELECT u.id AS user_id, u.role, u.seller_id
  FROM users u
 WHERE u.role = 'admin' OR u.role = 'seller' AND u.seller_id IS NOT NULL;

-- Pieces are alike, so only the line of their batch tells a repeat from more of them (law 1: Redis may have forgotten).
ALTER TABLE changes
    ADD COLUMN batch        text CHECK (length(batch) BETWEEN 1 AND 255),         -- the Idempotency-Key, if there was one
    ADD COLUMN request_hash bytea CHECK (octet_length(request_hash) = 32),        -- the same key for anything else is refused
    ADD COLUMN known        int[],                                                -- places in the batch of what was there before
    ADD CHECK ((batch IS NULL) = (request_hash IS NULL) AND (batch IS NULL) = (known IS NULL));
CREATE UNIQUE INDEX changes_batch_once ON changes (user_id, batch) WHERE batch IS NOT NULL;
