-- The life of an order after the sale: which moves there are and who may make them, in this table and nowhere else
-- (docs/moves.md is made from it). What gateways, jobs and sweeps do of themselves is not among them.
ALTER TABLE orders DROP CONSTRAINT orders_status_check;
ALTER TABLE orders ADD CONSTRAINT orders_status_check CHECK (status IN (
    'pending', 'paid', 'preorder', 'reviewing', 'issue_reported', 'locked', 'confirmed', 'preparing', 'ready_for_pickup',
    'in_delivery', 'partially_delivered', 'delivered', 'shipped', 'completed', 'cancelled', 'expired', 'refunded',
    'partially_refunded'));

CREATE TABLE order_moves (
    from_status text NOT NULL,
    to_status   text NOT NULL,
    role        text NOT NULL CHECK (role IN ('buyer', 'seller', 'admin')),
    PRIMARY KEY (from_status, to_status, role)
);
INSERT INTO order_moves (from_status, to_status, role)
SELECT m.from_status, m.to_status, r.role
  FROM (VALUES ('pending', ARRAY['reviewing', 'confirmed', 'in_delivery', 'cancelled']),
               ('reviewing', ARRAY['issue_reported', 'locked', 'confirmed', 'cancelled']),
               ('issue_reported', ARRAY['locked', 'reviewing', 'confirmed', 'cancelled']),
               ('locked', ARRAY['confirmed', 'preparing', 'cancelled']),
               ('paid', ARRAY['confirmed']),
               ('confirmed', ARRAY['in_delivery', 'preparing', 'cancelled']),
               ('preparing', ARRAY['ready_for_pickup', 'in_delivery', 'cancelled']),
               ('ready_for_pickup', ARRAY['in_delivery', 'delivered', 'cancelled']),
               ('in_delivery', ARRAY['delivered', 'partially_delivered']),
               ('partially_delivered', ARRAY['delivered', 'in_delivery']),
               ('delivered', ARRAY['completed'])) AS s (from_status, to_statuses),
       unnest(s.to_statuses) AS t (to_status),
       LATERAL (SELECT s.from_status, t.to_status) AS m,
       unnest(ARRAY['seller', 'admin']) AS r (role)
UNION ALL VALUES ('in_delivery', 'delivered', 'buyer'), ('partially_delivered', 'delivered', 'buyer'),
                 ('confirmed', 'delivered', 'buyer'), ('pending', 'cancelled', 'buyer'), ('confirmed', 'cancelled', 'buyer');

-- What is said about an order between its buyer and the shop.
CREATE TABLE order_chat (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    order_id uuid NOT NULL REFERENCES orders,
    event_id bigint UNIQUE REFERENCES order_events,       -- what it tells of: told once
    role     text NOT NULL CHECK (role IN ('buyer', 'seller', 'admin', 'system')),
    text     text NOT NULL CHECK (length(text) BETWEEN 1 AND 4000),
    at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX order_chat_of_order ON order_chat (order_id, id);

-- What an order becomes when money goes back: who still works on it goes on with it, and what was cancelled stays so.
CREATE FUNCTION after_refund(status text, whole boolean) RETURNS text LANGUAGE sql IMMUTABLE RETURN
    CASE WHEN status = 'cancelled' THEN status
         WHEN whole THEN 'refunded'
         WHEN status IN ('paid', 'preorder', 'delivered', 'partially_refunded') THEN 'partially_refunded'
         ELSE status END;

-- Whoever moves an order, by whatever statement, owes its announcement. That it is paid is announced by its delivery,
-- which follows at once, so that settling owes no second row.
CREATE FUNCTION owe_announcements() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO outbox (kind, key, payload, aggregate)
    SELECT 'announce', 'move:' || a.id, jsonb_build_object('event_id', a.id), 'announce:' || a.order_id FROM added a
     WHERE a.from_status <> a.to_status AND a.to_status <> 'paid'
    ON CONFLICT (kind, key) DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER order_events_owe AFTER INSERT ON order_events REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION owe_announcements();

-- A paid order that is cancelled has used its promo code: what was delivered of it keeps its price.
DROP INDEX orders_promo_slot;
CREATE UNIQUE INDEX orders_promo_slot ON orders (user_id, promo_id, promo_slot)
    WHERE promo_id IS NOT NULL AND promo_slot IS NOT NULL
      AND (status NOT IN ('expired', 'cancelled') OR paid_at IS NOT NULL);

ALTER TABLE refunds DROP CONSTRAINT refunds_reason_check;
ALTER TABLE refunds ADD CONSTRAINT refunds_reason_check CHECK (reason IN ('admin', 'overdue', 'cancelled'));

-- As whom a user may act on an order.
CREATE VIEW order_people AS
SELECT o.id AS order_id, o.user_id, 'buyer' AS role FROM orders o
UNION ALL
SELECT o.id, s.user_id, s.role FROM orders o JOIN staff s ON s.role = 'admin' OR s.seller_id = o.seller_id;

-- An order with everything that belongs to it, as its people read it.
CREATE VIEW order_cards AS
SELECT o.id, o.number, o.currency, o.total_minor, o.created_at, o.expires_at, o.paid_at, o.lines::text AS lines,
       o.credited_minor, o.refunded_minor, p.provider AS payment_provider, p.status AS payment_status,
       p.url AS payment_url, p.amount_minor AS payment_minor, u.id AS buyer_id, u.name AS buyer_name,
       (SELECT coalesce(json_agg(json_build_object('from', e.from_status, 'to', e.to_status, 'role', e.role,
               'note', CASE WHEN m.role IS NULL THEN '' ELSE e.note END, 'at', e.at)
               ORDER BY e.id), '[]')
          FROM order_events e LEFT JOIN order_moves m ON m.from_status = e.from_status AND m.to_status = e.to_status
                                                     AND m.role = e.role  -- other notes are the shop's own
         WHERE e.order_id = o.id AND e.from_status IS DISTINCT FROM e.to_status)::text AS history,
       (SELECT coalesce(json_agg(json_build_object('role', c.role, 'text', c.text, 'at', c.at) ORDER BY c.id), '[]')
          FROM order_chat c WHERE c.order_id = o.id)::text AS chat
  FROM orders_with_lines o JOIN users u ON u.id = o.user_id
  LEFT JOIN LATERAL (SELECT y.provider, y.status, y.url, y.amount_minor FROM payments y WHERE y.order_id = o.id
                      ORDER BY (y.status = 'paid') DESC, y.id DESC LIMIT 1) p ON true;
