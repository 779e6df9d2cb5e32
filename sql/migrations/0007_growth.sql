-- Growth: who brought whom and what that earned, what was saved against list prices, promo codes.

-- Set when a user first enters and never again. Whoever brought somebody was here before: no circle, and nobody's own.
ALTER TABLE users ADD COLUMN referrer_id bigint REFERENCES users CHECK (referrer_id < id);
CREATE INDEX users_referred ON users (referrer_id) WHERE referrer_id IS NOT NULL;

CREATE TABLE referral_bonuses (
    order_id     uuid NOT NULL REFERENCES orders,
    level        int NOT NULL CHECK (level BETWEEN 1 AND 3),    -- 1: brought the buyer · 2: brought who brought the buyer · 3
    user_id      bigint NOT NULL REFERENCES users,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    clawed_minor bigint NOT NULL DEFAULT 0 CHECK (clawed_minor BETWEEN 0 AND amount_minor),  -- taken back, or owed as debt
    at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, level)
);
CREATE INDEX referral_bonuses_of_user ON referral_bonuses (user_id);

ALTER TABLE postings DROP CONSTRAINT postings_reason_check;
ALTER TABLE postings ADD CONSTRAINT postings_reason_check CHECK (reason IN (
    'sale', 'overpaid', 'underpaid', 'late', 'late_part', 'second', 'cancelled', 'from_balance', 'refund', 'chargeback',
    'bonus', 'clawback', 'repaid', 'cashback'));

-- What was saved since a moment, by whom.
CREATE INDEX order_items_delivered ON order_items (delivered_at) WHERE state = 'delivered';

CREATE TABLE promos (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code        text NOT NULL UNIQUE CHECK (code ~ '^[A-Z0-9_-]{2,40}$'),
    discount_bp int NOT NULL CHECK (discount_bp BETWEEN 1 AND 10000),
    most_uses   int NOT NULL CHECK (most_uses > 0),
    uses        int NOT NULL DEFAULT 0,                         -- by orders that are neither expired nor cancelled
    per_user    int NOT NULL DEFAULT 1 CHECK (per_user BETWEEN 1 AND 100),
    starts_at   timestamptz NOT NULL DEFAULT now(),
    ends_at     timestamptz,
    active      boolean NOT NULL DEFAULT true,
    seller_id   bigint REFERENCES sellers,                      -- null: whosever goods
    product_id  bigint REFERENCES products,                     -- null: whichever
    version     bigint NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (ends_at > starts_at),
    CONSTRAINT promos_uses_check CHECK (uses BETWEEN 0 AND most_uses)  -- the last word on the limit
);

-- The slot is one of the code's uses by this buyer; null on an order that was paid late, after its use went back.
ALTER TABLE orders
    ADD COLUMN promo_id   bigint REFERENCES promos,
    ADD COLUMN promo_slot int CHECK (promo_slot BETWEEN 1 AND 100),
    ADD CHECK (promo_slot IS NULL OR promo_id IS NOT NULL);
CREATE UNIQUE INDEX orders_promo_slot ON orders (user_id, promo_id, promo_slot)
    WHERE promo_id IS NOT NULL AND promo_slot IS NOT NULL AND status NOT IN ('expired', 'cancelled');

-- Codes that can be used at this moment: a row for each use that one buyer may have.
CREATE VIEW open_promos AS
SELECT p.id, p.code, p.seller_id, p.product_id, n.slot FROM promos p CROSS JOIN LATERAL generate_series(1, p.per_user) AS n (slot)
 WHERE p.active AND p.uses < p.most_uses AND p.starts_at <= now() AND (p.ends_at IS NULL OR p.ends_at > now());

-- What is for sale, at its price and at its price with each code: the highest discount counts, never a sum.
CREATE VIEW stock_with_promos AS
SELECT a.*, '' AS code, a.final_price_minor AS price_minor FROM available_stock_with_discounts a
UNION ALL
SELECT a.*, p.code, CASE WHEN p.product_id IS NULL OR p.product_id = a.product_id
       THEN least(a.final_price_minor, greatest(1, (a.list_price_minor * (10000 - p.discount_bp) + 5000) / 10000))
       ELSE a.final_price_minor END
  FROM available_stock_with_discounts a CROSS JOIN promos p;

-- A change is about a product (or its stock) or about a promo code.
ALTER TABLE changes DROP CONSTRAINT changes_noun_check;
ALTER TABLE changes
    ALTER COLUMN noun_id DROP NOT NULL,
    ADD COLUMN promo_id bigint REFERENCES promos,
    ADD CONSTRAINT changes_noun_check CHECK (noun IN ('product', 'stock', 'promo')),
    ADD CHECK ((noun = 'promo') = (promo_id IS NOT NULL) AND (noun = 'promo') = (noun_id IS NULL));
