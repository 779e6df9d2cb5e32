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
