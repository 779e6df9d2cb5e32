-- The outbox: order among the jobs of one aggregate, and dead letters that are replayed or dropped with their story.

-- owed: to be done · done · dead: waits for a human · dropped: a human has decided that it is never done
ALTER TABLE outbox DROP CONSTRAINT outbox_state_check;
ALTER TABLE outbox
    ADD CONSTRAINT outbox_state_check CHECK (state IN ('owed', 'done', 'dead', 'dropped')),
    ADD COLUMN aggregate text CHECK (length(aggregate) BETWEEN 1 AND 200),  -- one after another, in the order of ids; null: any
    ADD COLUMN orphaned  int NOT NULL DEFAULT 0,    -- attempts in a row whose worker was never heard of again
    ADD COLUMN died_at   timestamptz,
    ADD COLUMN history   text NOT NULL DEFAULT '';  -- a line for each replay, and for the drop
UPDATE outbox SET died_at = now() WHERE state = 'dead';

CREATE INDEX outbox_line ON outbox (aggregate, id) WHERE state = 'owed' AND aggregate IS NOT NULL;
CREATE INDEX outbox_dead ON outbox (id) WHERE state = 'dead';
-- What was dropped holds no order back.
DROP INDEX outbox_settling;
CREATE INDEX outbox_settling ON outbox ((payload ->> 'invoice_id')) WHERE kind = 'settle' AND state IN ('owed', 'dead');

-- A change is about a product (or its stock), a promo code, or something that `what` names.
ALTER TABLE changes DROP CONSTRAINT changes_noun_check, DROP CONSTRAINT changes_check2;
ALTER TABLE changes
    ADD CONSTRAINT changes_noun_check CHECK (noun ~ '^[a-z_]{1,40}$'),
    ADD CONSTRAINT changes_of_what CHECK ((noun = 'promo') = (promo_id IS NOT NULL)
                                      AND (noun IN ('product', 'stock')) = (noun_id IS NOT NULL));
