-- Reviews: one per buyer and product, and their sum per product, which the shelf shows.

CREATE TABLE product_ratings (
    product_id bigint PRIMARY KEY REFERENCES products,
    ratings    int NOT NULL CHECK (ratings >= 0),
    total      bigint NOT NULL CHECK (total BETWEEN ratings AND 5 * ratings::bigint),  -- the sum of all stars
    version    bigint NOT NULL DEFAULT 0                -- moves with every write: the optimistic lock
);

CREATE OR REPLACE VIEW shelf AS
SELECT p.id, p.title, p.description, p.category, p.kind, p.seller_id, s.name AS seller_name, p.currency,
       p.list_price_minor, coalesce(n.final_price_minor, p.list_price_minor) AS price_minor,
       coalesce(n.discount_bp, 0) AS discount_bp,
       CASE WHEN p.kind IN ('unit', 'shipped') THEN u.units WHEN n.product_id IS NULL THEN 0 END AS units_left,
       p.lead_time_h, coalesce(r.ratings, 0) AS ratings, coalesce(r.total, 0) AS rating_total
  FROM products p
  JOIN sellers s ON s.id = p.seller_id
  LEFT JOIN product_ratings r ON r.product_id = p.id
 CROSS JOIN LATERAL (
       SELECT count(*)::int AS units FROM available_stock_with_discounts v WHERE v.product_id = p.id) u
  LEFT JOIN LATERAL (
       SELECT v.product_id, v.final_price_minor, v.discount_bp FROM available_stock_with_discounts v
        WHERE v.product_id = p.id
        ORDER BY v.item_discount_bp DESC, v.received_at, v.stock_item_id LIMIT 1) n ON true
 WHERE p.active;

CREATE TABLE reviews (
    id         bigint GENERATED ALWAYS AS IDENTITY UNIQUE,      -- the order in which pages show them
    product_id bigint NOT NULL REFERENCES products,
    user_id    bigint NOT NULL REFERENCES users,
    order_id   uuid NOT NULL REFERENCES orders,                 -- proves that its writer has the goods
    rating     int NOT NULL CHECK (rating BETWEEN 1 AND 5),
    text       text NOT NULL DEFAULT '' CHECK (length(text) <= 2000),
    created_at timestamptz NOT NULL DEFAULT now(),
    edited_at  timestamptz,
    PRIMARY KEY (product_id, user_id)
);
CREATE INDEX reviews_newest ON reviews (product_id, id DESC);

-- Admin: what staff edit is versioned, so that nobody overwrites what he has not seen, and every change is kept.

ALTER TABLE products ADD COLUMN version bigint NOT NULL DEFAULT 1;

CREATE TABLE changes (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    user_id    bigint REFERENCES users,                         -- null: whoever `what` names, at the machine
    role       text NOT NULL CHECK (role IN ('seller', 'admin')),
    noun       text NOT NULL CHECK (noun IN ('product', 'stock')),
    noun_id    bigint NOT NULL REFERENCES products,             -- stock is named by its product
    what       jsonb NOT NULL,                                  -- the fields, old and new; never a secret
    CHECK (user_id IS NOT NULL OR what ? 'by')
);
CREATE INDEX changes_of_noun ON changes (noun_id, id);

-- Units of a product by age (ids ascend), in any state: what staff page through.
CREATE INDEX stock_items_listed ON stock_items (product_id, id);

-- Every product as its staff see it: inactive ones too, and its units by state. What is available and past its date
-- counts as expired only.
CREATE VIEW assortment AS
SELECT p.id, p.seller_id, s.name AS seller_name, p.title, p.description, p.category, p.kind, p.currency,
       p.list_price_minor, p.discount_bp, p.duration_days, p.lead_time_h, p.active, p.version, p.created_at,
       EXISTS (SELECT FROM shared_goods g WHERE g.product_id = p.id) AS has_content,
       u.available, u.expired, u.held, u.sold, u.withdrawn
  FROM products p
  JOIN sellers s ON s.id = p.seller_id
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE i.state = 'available' AND (i.expires_at IS NULL OR i.expires_at > now()))::int AS available,
              count(*) FILTER (WHERE i.state = 'available' AND i.expires_at <= now())::int AS expired,
              count(*) FILTER (WHERE i.state = 'held')::int AS held,
              count(*) FILTER (WHERE i.state = 'sold')::int AS sold,
              count(*) FILTER (WHERE i.state = 'withdrawn')::int AS withdrawn
         FROM stock_items i WHERE i.product_id = p.id) u;
