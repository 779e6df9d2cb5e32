-- How many unpaid orders one buyer may keep at a time: each has a slot of its own, and there are only so many.

ALTER TABLE orders ADD COLUMN slot smallint CHECK (slot BETWEEN 1 AND 100);  -- null: made before slots were
CREATE UNIQUE INDEX orders_pending_slot ON orders (user_id, slot) WHERE status = 'pending' AND slot IS NOT NULL;
