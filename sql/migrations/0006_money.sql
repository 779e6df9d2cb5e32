-- Money: a ledger of double entries, balances that buyers can spend, payments that can be more than paid, refunds.

-- Every movement of money, once, from one account to another: a posting takes from `debit` and gives to `credit`, so
-- all of them always sum to zero. Accounts: buyer:<user> (what we owe a buyer), debt:<user> (what a buyer owes us),
-- sales:<seller>, gateway:<name> (what a gateway holds for us), bonuses (what the shop gives away).
CREATE TABLE postings (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    reference    text NOT NULL UNIQUE CHECK (length(reference) BETWEEN 1 AND 200),  -- the movement's own name
    debit        text NOT NULL CHECK (debit ~ '^((buyer|debt|sales):[1-9][0-9]*|gateway:[a-z]{1,32}|bonuses)$'),
    credit       text NOT NULL CHECK (credit ~ '^((buyer|debt|sales):[1-9][0-9]*|gateway:[a-z]{1,32}|bonuses)$'),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    reason       text NOT NULL CHECK (reason IN (
        'sale', 'overpaid', 'underpaid', 'late', 'late_part', 'second', 'cancelled', 'from_balance', 'refund',
        'chargeback', 'bonus', 'clawback', 'repaid')),
    order_id     uuid REFERENCES orders,
    user_id      bigint REFERENCES users,       -- whose statement shows it; null: between accounts of the shop
    at           timestamptz NOT NULL DEFAULT now(),
    CHECK (debit <> credit)
);
CREATE INDEX postings_of_user ON postings (user_id, id DESC) WHERE user_id IS NOT NULL;
CREATE INDEX postings_of_order ON postings (order_id) WHERE order_id IS NOT NULL;

-- The sums of buyer:<user> and debt:<user>, moved by the statements that post, never read and written back.
CREATE TABLE balances (
    user_id       bigint NOT NULL REFERENCES users,
    currency      text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    balance_minor bigint NOT NULL DEFAULT 0 CHECK (balance_minor >= 0),
    debt_minor    bigint NOT NULL DEFAULT 0 CHECK (debt_minor >= 0),  -- taken back when it was spent already
    PRIMARY KEY (user_id, currency)
);

-- Every account's legs: what it gave is negative.
CREATE VIEW ledger AS
SELECT p.credit AS account, p.amount_minor, p.currency, p.reason, p.order_id, p.at, p.id FROM postings p
UNION ALL
SELECT p.debit, -p.amount_minor, p.currency, p.reason, p.order_id, p.at, p.id FROM postings p;

ALTER TABLE orders
    ADD COLUMN credited_minor bigint NOT NULL DEFAULT 0 CHECK (credited_minor >= 0),  -- of part payments, on the balance
    ADD COLUMN refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND total_minor);

-- credited: money came that did not pay the order, and is on the buyer's balance · cancelled: the gateway closed it unpaid
ALTER TABLE payments DROP CONSTRAINT payments_status_check;
ALTER TABLE payments
    ADD CONSTRAINT payments_status_check
        CHECK (status IN ('opening', 'failed', 'open', 'paid', 'credited', 'cancelled')),
    ADD COLUMN received_minor bigint NOT NULL DEFAULT 0 CHECK (received_minor >= 0),  -- what the gateway said last
    ADD COLUMN refunded_minor bigint NOT NULL DEFAULT 0 CHECK (refunded_minor BETWEEN 0 AND received_minor),
    ADD COLUMN poll_at        timestamptz;                      -- when the gateway is asked unasked; null: no more
UPDATE payments SET received_minor = amount_minor WHERE status = 'paid';
DROP INDEX payments_one_current;
CREATE UNIQUE INDEX payments_one_current ON payments (order_id, provider) WHERE status IN ('opening', 'failed', 'open');
CREATE INDEX payments_to_poll ON payments (poll_at) WHERE poll_at IS NOT NULL;

-- How many questions each gateway may still be asked: a bucket that fills over a minute, emptied by all processes.
CREATE TABLE quotas (
    provider text PRIMARY KEY CHECK (provider ~ '^[a-z]{1,32}$'),
    calls    double precision NOT NULL CHECK (calls >= 0),
    at       timestamptz NOT NULL DEFAULT now()
);

-- What was sold before there was a ledger.
INSERT INTO postings (reference, debit, credit, amount_minor, currency, reason, order_id, at)
SELECT 'sale:' || o.id, 'gateway:' || split_part(o.paid_by, ':', 1), 'sales:' || o.seller_id, o.total_minor, o.currency,
       'sale', o.id, o.paid_at
  FROM orders o WHERE o.paid_by IS NOT NULL;

-- Money on its way back. `balance` is done when the row is there; `rail` waits for the gateway.
CREATE TABLE refunds (
    id           uuid PRIMARY KEY,                              -- also the gateway's idempotency key
    order_id     uuid NOT NULL REFERENCES orders,
    payment_id   bigint REFERENCES payments,                    -- of the rail
    target       text NOT NULL CHECK (target IN ('balance', 'rail')),
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    state        text NOT NULL CHECK (state IN ('owed', 'done', 'refused')),  -- refused by the rail: it went to the balance
    gateway_id   text NOT NULL DEFAULT '',
    reason       text NOT NULL CHECK (reason IN ('admin', 'overdue')),
    note         text NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    user_id      bigint REFERENCES users,                       -- the admin; null: the shop itself
    key          text NOT NULL CHECK (length(key) BETWEEN 1 AND 300),
    at           timestamptz NOT NULL DEFAULT now(),
    done_at      timestamptz,
    UNIQUE (order_id, key),
    CHECK ((target = 'rail') = (payment_id IS NOT NULL))
);
CREATE INDEX refunds_of_order ON refunds (order_id, at);

-- What was made to order, handed over by its seller.
CREATE TABLE made_goods (
    order_id uuid NOT NULL,
    position int NOT NULL,
    sealed   bytea NOT NULL,
    user_id  bigint REFERENCES users,
    at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, position),
    FOREIGN KEY (order_id, position) REFERENCES order_items (order_id, position)
);
CREATE INDEX order_items_owed ON order_items (due_at) WHERE state = 'owed' AND due_at IS NOT NULL;

CREATE OR REPLACE VIEW orders_with_lines AS
SELECT o.id, o.number, o.user_id, o.seller_id, o.status, o.currency, o.total_minor,
       o.created_at, o.expires_at, o.paid_at, o.delivered_at,
       (SELECT json_agg(l ORDER BY l.first)
          FROM (SELECT i.product_id, i.title, i.kind, count(*) AS quantity, sum(i.price_minor) AS total_minor,
                       min(i.position) AS first
                  FROM order_items i WHERE i.order_id = o.id
                 GROUP BY i.product_id, i.title, i.kind) l) AS lines,
       o.credited_minor, o.refunded_minor
  FROM orders o;

CREATE INDEX users_of_seller ON users (seller_id) WHERE seller_id IS NOT NULL;
