-- Made by `make docs` from a database with every migration of sql/migrations; for reading and comparing only.

CREATE FUNCTION public.after_refund(status text, whole boolean) RETURNS text
    LANGUAGE sql IMMUTABLE
    RETURN CASE WHEN (status = 'cancelled'::text) THEN status WHEN whole THEN 'refunded'::text WHEN (status = ANY (ARRAY['paid'::text, 'preorder'::text, 'delivered'::text, 'partially_refunded'::text])) THEN 'partially_refunded'::text ELSE status END;

CREATE FUNCTION public.owe_announcements() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    INSERT INTO outbox (kind, key, payload, aggregate)
    SELECT 'announce', 'move:' || a.id, jsonb_build_object('event_id', a.id), 'announce:' || a.order_id FROM added a
     WHERE a.from_status <> a.to_status AND a.to_status <> 'paid'
    ON CONFLICT (kind, key) DO NOTHING;
    RETURN NULL;
END $$;

CREATE TABLE public.products (
    id bigint NOT NULL,
    seller_id bigint NOT NULL,
    title text NOT NULL,
    description text DEFAULT ''::text NOT NULL,
    category text NOT NULL,
    kind text NOT NULL,
    currency text NOT NULL,
    list_price_minor bigint NOT NULL,
    discount_bp integer DEFAULT 0 NOT NULL,
    duration_days integer,
    lead_time_h integer,
    active boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    search tsvector GENERATED ALWAYS AS (((setweight(((to_tsvector('simple'::regconfig, translate(regexp_replace(NORMALIZE(title, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text)) || to_tsvector('english'::regconfig, translate(regexp_replace(NORMALIZE(title, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))) || to_tsvector('russian'::regconfig, translate(regexp_replace(NORMALIZE(title, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))), 'A'::"char") || setweight(((to_tsvector('simple'::regconfig, translate(regexp_replace(NORMALIZE(category, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text)) || to_tsvector('english'::regconfig, translate(regexp_replace(NORMALIZE(category, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))) || to_tsvector('russian'::regconfig, translate(regexp_replace(NORMALIZE(category, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))), 'B'::"char")) || setweight(((to_tsvector('simple'::regconfig, translate(regexp_replace(NORMALIZE(description, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text)) || to_tsvector('english'::regconfig, translate(regexp_replace(NORMALIZE(description, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))) || to_tsvector('russian'::regconfig, translate(regexp_replace(NORMALIZE(description, NFKC), '[^[:alnum:]]+'::text, ' '::text, 'g'::text), 'ёЁ'::text, 'еЕ'::text))), 'C'::"char"))) STORED NOT NULL,
    CONSTRAINT products_category_check CHECK (((length(category) >= 1) AND (length(category) <= 60))),
    CONSTRAINT products_check CHECK (((kind = 'made'::text) = (lead_time_h IS NOT NULL))),
    CONSTRAINT products_currency_check CHECK ((currency = ANY (ARRAY['RUB'::text, 'USD'::text, 'EUR'::text, 'UAH'::text, 'KZT'::text, 'BYN'::text]))),
    CONSTRAINT products_description_check CHECK ((length(description) <= 4000)),
    CONSTRAINT products_discount_bp_check CHECK (((discount_bp >= 0) AND (discount_bp <= 10000))),
    CONSTRAINT products_duration_days_check CHECK ((duration_days > 0)),
    CONSTRAINT products_kind_check CHECK ((kind = ANY (ARRAY['unit'::text, 'shared'::text, 'made'::text, 'shipped'::text]))),
    CONSTRAINT products_lead_time_h_check CHECK ((lead_time_h > 0)),
    CONSTRAINT products_list_price_minor_check CHECK (((list_price_minor >= 1) AND (list_price_minor <= '1000000000000'::bigint))),
    CONSTRAINT products_title_check CHECK (((length(title) >= 1) AND (length(title) <= 200)))
);

CREATE TABLE public.sellers (
    id bigint NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT sellers_name_check CHECK (((length(name) >= 1) AND (length(name) <= 100)))
);

CREATE TABLE public.shared_goods (
    product_id bigint NOT NULL,
    sealed bytea NOT NULL
);

CREATE TABLE public.stock_items (
    id uuid NOT NULL,
    product_id bigint NOT NULL,
    state text DEFAULT 'available'::text NOT NULL,
    sealed bytea,
    fingerprint bytea,
    discount_bp integer DEFAULT 0 NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    CONSTRAINT stock_items_check CHECK (((sealed IS NULL) = (fingerprint IS NULL))),
    CONSTRAINT stock_items_discount_bp_check CHECK (((discount_bp >= 0) AND (discount_bp <= 10000))),
    CONSTRAINT stock_items_state_check CHECK ((state = ANY (ARRAY['available'::text, 'held'::text, 'sold'::text, 'withdrawn'::text])))
);

CREATE VIEW public.assortment AS
 SELECT p.id,
    p.seller_id,
    s.name AS seller_name,
    p.title,
    p.description,
    p.category,
    p.kind,
    p.currency,
    p.list_price_minor,
    p.discount_bp,
    p.duration_days,
    p.lead_time_h,
    p.active,
    p.version,
    p.created_at,
    (EXISTS ( SELECT
           FROM public.shared_goods g
          WHERE (g.product_id = p.id))) AS has_content,
    u.available,
    u.expired,
    u.held,
    u.sold,
    u.withdrawn
   FROM ((public.products p
     JOIN public.sellers s ON ((s.id = p.seller_id)))
     CROSS JOIN LATERAL ( SELECT (count(*) FILTER (WHERE ((i.state = 'available'::text) AND ((i.expires_at IS NULL) OR (i.expires_at > now())))))::integer AS available,
            (count(*) FILTER (WHERE ((i.state = 'available'::text) AND (i.expires_at <= now()))))::integer AS expired,
            (count(*) FILTER (WHERE (i.state = 'held'::text)))::integer AS held,
            (count(*) FILTER (WHERE (i.state = 'sold'::text)))::integer AS sold,
            (count(*) FILTER (WHERE (i.state = 'withdrawn'::text)))::integer AS withdrawn
           FROM public.stock_items i
          WHERE (i.product_id = p.id)) u);

CREATE VIEW public.available_stock_with_discounts AS
 SELECT s.id AS stock_item_id,
    p.id AS product_id,
    p.seller_id,
    p.title,
    p.kind,
    p.currency,
    p.list_price_minor,
    d.discount_bp,
    GREATEST((1)::bigint, (((p.list_price_minor * (10000 - d.discount_bp)) + 5000) / 10000)) AS final_price_minor,
    s.discount_bp AS item_discount_bp,
    s.received_at
   FROM (((public.products p
     JOIN public.stock_items s ON ((s.product_id = p.id)))
     CROSS JOIN LATERAL ( SELECT (floor((EXTRACT(epoch FROM (now() - s.received_at)) / (86400)::numeric)))::integer AS idle_days) i)
     CROSS JOIN LATERAL ( SELECT GREATEST(p.discount_bp, s.discount_bp,
                CASE
                    WHEN ((p.duration_days >= 30) AND (i.idle_days >= 14)) THEN LEAST(2000, ((i.idle_days * 5000) / p.duration_days))
                    ELSE 0
                END) AS discount_bp) d)
  WHERE (p.active AND ((p.kind = 'shipped'::text) OR ((p.kind = 'unit'::text) AND (s.sealed IS NOT NULL))) AND (s.state = 'available'::text) AND ((s.expires_at IS NULL) OR (s.expires_at > now())))
UNION ALL
 SELECT NULL::uuid AS stock_item_id,
    p.id AS product_id,
    p.seller_id,
    p.title,
    p.kind,
    p.currency,
    p.list_price_minor,
    p.discount_bp,
    GREATEST((1)::bigint, (((p.list_price_minor * (10000 - p.discount_bp)) + 5000) / 10000)) AS final_price_minor,
    0 AS item_discount_bp,
    p.created_at AS received_at
   FROM public.products p
  WHERE (p.active AND ((p.kind = 'made'::text) OR ((p.kind = 'shared'::text) AND (EXISTS ( SELECT
           FROM public.shared_goods g
          WHERE (g.product_id = p.id))))));

CREATE TABLE public.balances (
    user_id bigint NOT NULL,
    currency text NOT NULL,
    balance_minor bigint DEFAULT 0 NOT NULL,
    debt_minor bigint DEFAULT 0 NOT NULL,
    CONSTRAINT balances_balance_minor_check CHECK ((balance_minor >= 0)),
    CONSTRAINT balances_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT balances_debt_minor_check CHECK ((debt_minor >= 0))
);

CREATE TABLE public.broadcasts (
    id bigint NOT NULL,
    texts jsonb NOT NULL,
    audience text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    cursor_user_id bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    blocked bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    created_by bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    ended_at timestamp with time zone,
    draft uuid,
    CONSTRAINT broadcasts_audience_check CHECK ((audience = ANY (ARRAY['all'::text, 'buyers'::text]))),
    CONSTRAINT broadcasts_check CHECK (((state = ANY (ARRAY['done'::text, 'cancelled'::text])) = (ended_at IS NOT NULL))),
    CONSTRAINT broadcasts_state_check CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'done'::text, 'cancelled'::text]))),
    CONSTRAINT broadcasts_texts_check CHECK ((texts ?& ARRAY['en'::text, 'ru'::text]))
);

ALTER TABLE public.broadcasts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.broadcasts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.cart_lines (
    user_id bigint NOT NULL,
    product_id bigint NOT NULL,
    quantity integer NOT NULL,
    added_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT cart_lines_quantity_check CHECK (((quantity >= 1) AND (quantity <= 99)))
);

CREATE TABLE public.changes (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    user_id bigint,
    role text NOT NULL,
    noun text NOT NULL,
    noun_id bigint,
    what jsonb NOT NULL,
    batch text,
    request_hash bytea,
    known integer[],
    promo_id bigint,
    endpoint_id uuid,
    channel_id bigint,
    CONSTRAINT changes_batch_check CHECK (((length(batch) >= 1) AND (length(batch) <= 255))),
    CONSTRAINT changes_check CHECK (((user_id IS NOT NULL) OR (what ? 'by'::text))),
    CONSTRAINT changes_check1 CHECK ((((batch IS NULL) = (request_hash IS NULL)) AND ((batch IS NULL) = (known IS NULL)))),
    CONSTRAINT changes_noun_check CHECK ((noun ~ '^[a-z_]{1,40}$'::text)),
    CONSTRAINT changes_of_channel CHECK (((noun = ANY (ARRAY['channel'::text, 'conversation'::text])) = (channel_id IS NOT NULL))),
    CONSTRAINT changes_of_webhook CHECK (((noun = 'webhook'::text) = (endpoint_id IS NOT NULL))),
    CONSTRAINT changes_of_what CHECK ((((noun = 'promo'::text) = (promo_id IS NOT NULL)) AND ((noun = ANY (ARRAY['product'::text, 'stock'::text])) = (noun_id IS NOT NULL)))),
    CONSTRAINT changes_request_hash_check CHECK ((octet_length(request_hash) = 32)),
    CONSTRAINT changes_role_check CHECK ((role = ANY (ARRAY['seller'::text, 'admin'::text])))
);

ALTER TABLE public.changes ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.changes_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.channels (
    id bigint NOT NULL,
    kind text NOT NULL,
    external_id text NOT NULL,
    name text DEFAULT ''::text NOT NULL,
    active boolean DEFAULT true NOT NULL,
    quiet_ms integer DEFAULT 8000 NOT NULL,
    most integer DEFAULT 5 NOT NULL,
    escalation_enabled boolean DEFAULT true NOT NULL,
    escalation_threshold integer DEFAULT 3 NOT NULL,
    escalation_keywords text[] DEFAULT '{}'::text[] NOT NULL,
    endpoint_id uuid,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT channels_escalation_threshold_check CHECK (((escalation_threshold >= 1) AND (escalation_threshold <= 5))),
    CONSTRAINT channels_external_id_check CHECK (((length(external_id) >= 1) AND (length(external_id) <= 64))),
    CONSTRAINT channels_kind_check CHECK ((kind = ANY (ARRAY['telegram'::text, 'whatsapp'::text, 'app'::text]))),
    CONSTRAINT channels_most_check CHECK (((most >= 1) AND (most <= 10))),
    CONSTRAINT channels_name_check CHECK ((length(name) <= 100)),
    CONSTRAINT channels_quiet_ms_check CHECK (((quiet_ms >= 0) AND (quiet_ms <= 60000)))
);

ALTER TABLE public.channels ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.channels_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.conversations (
    id bigint NOT NULL,
    channel_id bigint NOT NULL,
    peer text NOT NULL,
    user_id bigint NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    heard_at timestamp with time zone DEFAULT now() NOT NULL,
    escalated_at timestamp with time zone,
    escalation text,
    reviewing_at timestamp with time zone,
    CONSTRAINT conversations_check CHECK (((escalated_at IS NULL) = (escalation IS NULL))),
    CONSTRAINT conversations_escalation_check CHECK ((escalation = ANY (ARRAY['user_request'::text, 'repeated_question'::text, 'low_confidence'::text, 'sensitive_topic'::text]))),
    CONSTRAINT conversations_peer_check CHECK (((length(peer) >= 1) AND (length(peer) <= 64)))
);

ALTER TABLE public.conversations ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.conversations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.endpoints (
    id uuid NOT NULL,
    seller_id bigint NOT NULL,
    url text NOT NULL,
    types text[] DEFAULT '{}'::text[] NOT NULL,
    sealed bytea,
    former bytea,
    former_until timestamp with time zone,
    heard_at timestamp with time zone,
    failing_since timestamp with time zone,
    disabled_at timestamp with time zone,
    disabled_why text,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    CONSTRAINT endpoints_check CHECK (((deleted_at IS NULL) = (sealed IS NOT NULL))),
    CONSTRAINT endpoints_check1 CHECK (((former IS NULL) = (former_until IS NULL))),
    CONSTRAINT endpoints_check2 CHECK (((disabled_at IS NULL) = (disabled_why IS NULL))),
    CONSTRAINT endpoints_disabled_why_check CHECK ((disabled_why = ANY (ARRAY['staff'::text, 'gone'::text, 'failing'::text]))),
    CONSTRAINT endpoints_url_check CHECK (((length(url) >= 1) AND (length(url) <= 2048)))
);

CREATE TABLE public.inbox (
    id bigint NOT NULL,
    provider text NOT NULL,
    event_key text NOT NULL,
    body bytea NOT NULL,
    headers jsonb NOT NULL,
    received_at timestamp with time zone DEFAULT now() NOT NULL,
    state text DEFAULT 'new'::text NOT NULL,
    outcome text DEFAULT ''::text NOT NULL,
    order_id uuid,
    settled_at timestamp with time zone,
    repeated_at timestamp with time zone,
    CONSTRAINT inbox_event_key_check CHECK (((length(event_key) >= 1) AND (length(event_key) <= 200))),
    CONSTRAINT inbox_provider_check CHECK ((provider ~ '^[a-z]{1,32}$'::text)),
    CONSTRAINT inbox_state_check CHECK ((state = ANY (ARRAY['new'::text, 'settled'::text, 'ignored'::text, 'review'::text])))
);

ALTER TABLE public.inbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.inbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.postings (
    id bigint NOT NULL,
    reference text NOT NULL,
    debit text NOT NULL,
    credit text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    reason text NOT NULL,
    order_id uuid,
    user_id bigint,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT postings_amount_minor_check CHECK ((amount_minor > 0)),
    CONSTRAINT postings_check CHECK ((debit <> credit)),
    CONSTRAINT postings_credit_check CHECK ((credit ~ '^((buyer|debt|sales):[1-9][0-9]*|gateway:[a-z]{1,32}|bonuses)$'::text)),
    CONSTRAINT postings_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT postings_debit_check CHECK ((debit ~ '^((buyer|debt|sales):[1-9][0-9]*|gateway:[a-z]{1,32}|bonuses)$'::text)),
    CONSTRAINT postings_reason_check CHECK ((reason = ANY (ARRAY['sale'::text, 'overpaid'::text, 'underpaid'::text, 'late'::text, 'late_part'::text, 'second'::text, 'cancelled'::text, 'from_balance'::text, 'refund'::text, 'chargeback'::text, 'bonus'::text, 'clawback'::text, 'repaid'::text, 'cashback'::text]))),
    CONSTRAINT postings_reference_check CHECK (((length(reference) >= 1) AND (length(reference) <= 200)))
);

CREATE VIEW public.ledger AS
 SELECT p.credit AS account,
    p.amount_minor,
    p.currency,
    p.reason,
    p.order_id,
    p.at,
    p.id
   FROM public.postings p
UNION ALL
 SELECT p.debit AS account,
    (- p.amount_minor) AS amount_minor,
    p.currency,
    p.reason,
    p.order_id,
    p.at,
    p.id
   FROM public.postings p;

CREATE TABLE public.made_goods (
    order_id uuid NOT NULL,
    "position" integer NOT NULL,
    sealed bytea NOT NULL,
    user_id bigint,
    at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE public.messages (
    id bigint NOT NULL,
    conversation_id bigint NOT NULL,
    turn_id uuid NOT NULL,
    role text NOT NULL,
    text text NOT NULL,
    user_id bigint,
    external_id text,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT messages_check CHECK (((role = 'agent'::text) = (user_id IS NOT NULL))),
    CONSTRAINT messages_external_id_check CHECK (((length(external_id) >= 1) AND (length(external_id) <= 200))),
    CONSTRAINT messages_role_check CHECK ((role = ANY (ARRAY['user'::text, 'assistant'::text, 'agent'::text, 'system'::text])))
);

ALTER TABLE public.messages ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.messages_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.promos (
    id bigint NOT NULL,
    code text NOT NULL,
    discount_bp integer NOT NULL,
    most_uses integer NOT NULL,
    uses integer DEFAULT 0 NOT NULL,
    per_user integer DEFAULT 1 NOT NULL,
    starts_at timestamp with time zone DEFAULT now() NOT NULL,
    ends_at timestamp with time zone,
    active boolean DEFAULT true NOT NULL,
    seller_id bigint,
    product_id bigint,
    version bigint DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT promos_check CHECK ((ends_at > starts_at)),
    CONSTRAINT promos_code_check CHECK ((code ~ '^[A-Z0-9_-]{2,40}$'::text)),
    CONSTRAINT promos_discount_bp_check CHECK (((discount_bp >= 1) AND (discount_bp <= 10000))),
    CONSTRAINT promos_most_uses_check CHECK ((most_uses > 0)),
    CONSTRAINT promos_per_user_check CHECK (((per_user >= 1) AND (per_user <= 100))),
    CONSTRAINT promos_uses_check CHECK (((uses >= 0) AND (uses <= most_uses)))
);

CREATE VIEW public.open_promos AS
 SELECT p.id,
    p.code,
    p.seller_id,
    p.product_id,
    n.slot
   FROM (public.promos p
     CROSS JOIN LATERAL generate_series(1, p.per_user) n(slot))
  WHERE (p.active AND (p.uses < p.most_uses) AND (p.starts_at <= now()) AND ((p.ends_at IS NULL) OR (p.ends_at > now())));

CREATE TABLE public.order_chat (
    id bigint NOT NULL,
    order_id uuid NOT NULL,
    event_id bigint,
    role text NOT NULL,
    text text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT order_chat_role_check CHECK ((role = ANY (ARRAY['buyer'::text, 'seller'::text, 'admin'::text, 'system'::text]))),
    CONSTRAINT order_chat_text_check CHECK (((length(text) >= 1) AND (length(text) <= 4000)))
);

CREATE TABLE public.order_events (
    id bigint NOT NULL,
    order_id uuid NOT NULL,
    from_status text,
    to_status text NOT NULL,
    role text NOT NULL,
    user_id bigint,
    note text DEFAULT ''::text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT order_events_role_check CHECK ((role = ANY (ARRAY['buyer'::text, 'seller'::text, 'admin'::text, 'gateway'::text, 'system'::text])))
);

CREATE TABLE public.order_items (
    order_id uuid NOT NULL,
    "position" integer NOT NULL,
    product_id bigint NOT NULL,
    title text NOT NULL,
    kind text NOT NULL,
    stock_item_id uuid,
    list_price_minor bigint NOT NULL,
    price_minor bigint NOT NULL,
    state text DEFAULT 'held'::text NOT NULL,
    due_at timestamp with time zone,
    delivered_at timestamp with time zone,
    CONSTRAINT order_items_check CHECK (((price_minor >= 0) AND (price_minor <= list_price_minor))),
    CONSTRAINT order_items_check1 CHECK (((stock_item_id IS NOT NULL) = (kind = ANY (ARRAY['unit'::text, 'shipped'::text])))),
    CONSTRAINT order_items_check2 CHECK (((state = 'delivered'::text) = (delivered_at IS NOT NULL))),
    CONSTRAINT order_items_kind_check CHECK ((kind = ANY (ARRAY['unit'::text, 'shared'::text, 'made'::text, 'shipped'::text]))),
    CONSTRAINT order_items_list_price_minor_check CHECK ((list_price_minor > 0)),
    CONSTRAINT order_items_position_check CHECK (("position" > 0)),
    CONSTRAINT order_items_state_check CHECK ((state = ANY (ARRAY['held'::text, 'delivered'::text, 'owed'::text, 'released'::text])))
);

CREATE TABLE public.order_moves (
    from_status text NOT NULL,
    to_status text NOT NULL,
    role text NOT NULL,
    CONSTRAINT order_moves_role_check CHECK ((role = ANY (ARRAY['buyer'::text, 'seller'::text, 'admin'::text])))
);

CREATE TABLE public.orders (
    id uuid NOT NULL,
    number bigint NOT NULL,
    user_id bigint NOT NULL,
    seller_id bigint NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    currency text NOT NULL,
    total_minor bigint NOT NULL,
    idempotency_key text NOT NULL,
    request_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    paid_at timestamp with time zone,
    paid_by text,
    delivered_at timestamp with time zone,
    slot smallint,
    credited_minor bigint DEFAULT 0 NOT NULL,
    refunded_minor bigint DEFAULT 0 NOT NULL,
    promo_id bigint,
    promo_slot integer,
    CONSTRAINT orders_check CHECK (((refunded_minor >= 0) AND (refunded_minor <= total_minor))),
    CONSTRAINT orders_check1 CHECK (((promo_slot IS NULL) OR (promo_id IS NOT NULL))),
    CONSTRAINT orders_credited_minor_check CHECK ((credited_minor >= 0)),
    CONSTRAINT orders_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT orders_idempotency_key_check CHECK (((length(idempotency_key) >= 1) AND (length(idempotency_key) <= 255))),
    CONSTRAINT orders_promo_slot_check CHECK (((promo_slot >= 1) AND (promo_slot <= 100))),
    CONSTRAINT orders_request_hash_check CHECK ((octet_length(request_hash) = 32)),
    CONSTRAINT orders_slot_check CHECK (((slot >= 1) AND (slot <= 100))),
    CONSTRAINT orders_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'paid'::text, 'preorder'::text, 'reviewing'::text, 'issue_reported'::text, 'locked'::text, 'confirmed'::text, 'preparing'::text, 'ready_for_pickup'::text, 'in_delivery'::text, 'partially_delivered'::text, 'delivered'::text, 'shipped'::text, 'completed'::text, 'cancelled'::text, 'expired'::text, 'refunded'::text, 'partially_refunded'::text]))),
    CONSTRAINT orders_total_minor_check CHECK ((total_minor > 0))
);

CREATE VIEW public.orders_with_lines AS
 SELECT id,
    number,
    user_id,
    seller_id,
    status,
    currency,
    total_minor,
    created_at,
    expires_at,
    paid_at,
    delivered_at,
    ( SELECT json_agg(l.* ORDER BY l.first) AS json_agg
           FROM ( SELECT i.product_id,
                    i.title,
                    i.kind,
                    count(*) AS quantity,
                    sum(i.price_minor) AS total_minor,
                    min(i."position") AS first
                   FROM public.order_items i
                  WHERE (i.order_id = o.id)
                  GROUP BY i.product_id, i.title, i.kind) l) AS lines,
    credited_minor,
    refunded_minor
   FROM public.orders o;

CREATE TABLE public.payments (
    id bigint NOT NULL,
    order_id uuid NOT NULL,
    provider text NOT NULL,
    status text DEFAULT 'opening'::text NOT NULL,
    invoice_id text,
    url text,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    opened_at timestamp with time zone DEFAULT now() NOT NULL,
    paid_at timestamp with time zone,
    received_minor bigint DEFAULT 0 NOT NULL,
    refunded_minor bigint DEFAULT 0 NOT NULL,
    poll_at timestamp with time zone,
    CONSTRAINT payments_amount_minor_check CHECK ((amount_minor > 0)),
    CONSTRAINT payments_check CHECK (((status <> ALL (ARRAY['open'::text, 'paid'::text])) OR (invoice_id IS NOT NULL))),
    CONSTRAINT payments_check1 CHECK (((refunded_minor >= 0) AND (refunded_minor <= received_minor))),
    CONSTRAINT payments_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT payments_invoice_id_check CHECK (((length(invoice_id) >= 1) AND (length(invoice_id) <= 128))),
    CONSTRAINT payments_provider_check CHECK ((provider ~ '^[a-z]{1,32}$'::text)),
    CONSTRAINT payments_received_minor_check CHECK ((received_minor >= 0)),
    CONSTRAINT payments_status_check CHECK ((status = ANY (ARRAY['opening'::text, 'failed'::text, 'open'::text, 'paid'::text, 'credited'::text, 'cancelled'::text])))
);

CREATE TABLE public.users (
    id bigint NOT NULL,
    telegram_id bigint,
    name text NOT NULL,
    username text,
    language text DEFAULT 'en'::text NOT NULL,
    role text DEFAULT 'buyer'::text NOT NULL,
    seller_id bigint,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    referrer_id bigint,
    blocked_at timestamp with time zone,
    email text,
    email_asked text,
    whatsapp text,
    chosen_language text,
    CONSTRAINT users_check CHECK ((referrer_id < id)),
    CONSTRAINT users_check1 CHECK (((telegram_id IS NOT NULL) OR (whatsapp IS NOT NULL))),
    CONSTRAINT users_chosen_language_check CHECK ((chosen_language = ANY (ARRAY['en'::text, 'ru'::text, 'uk'::text]))),
    CONSTRAINT users_email_asked_check CHECK (((length(email_asked) >= 3) AND (length(email_asked) <= 254))),
    CONSTRAINT users_email_check CHECK (((length(email) >= 3) AND (length(email) <= 254))),
    CONSTRAINT users_language_check CHECK (((length(language) >= 2) AND (length(language) <= 16))),
    CONSTRAINT users_name_check CHECK ((length(name) <= 200)),
    CONSTRAINT users_role_check CHECK ((role = ANY (ARRAY['buyer'::text, 'seller'::text, 'admin'::text]))),
    CONSTRAINT users_telegram_id_check CHECK ((telegram_id > 0)),
    CONSTRAINT users_username_check CHECK ((length(username) <= 64)),
    CONSTRAINT users_whatsapp_check CHECK ((whatsapp ~ '^[0-9]{5,20}$'::text))
);

CREATE VIEW public.order_cards AS
 SELECT o.id,
    o.number,
    o.currency,
    o.total_minor,
    o.created_at,
    o.expires_at,
    o.paid_at,
    (o.lines)::text AS lines,
    o.credited_minor,
    o.refunded_minor,
    p.provider AS payment_provider,
    p.status AS payment_status,
    p.url AS payment_url,
    p.amount_minor AS payment_minor,
    u.id AS buyer_id,
    u.name AS buyer_name,
    (( SELECT COALESCE(json_agg(json_build_object('from', e.from_status, 'to', e.to_status, 'role', e.role, 'note',
                CASE
                    WHEN (m.role IS NULL) THEN ''::text
                    ELSE e.note
                END, 'at', e.at) ORDER BY e.id), '[]'::json) AS "coalesce"
           FROM (public.order_events e
             LEFT JOIN public.order_moves m ON (((m.from_status = e.from_status) AND (m.to_status = e.to_status) AND (m.role = e.role))))
          WHERE ((e.order_id = o.id) AND (e.from_status IS DISTINCT FROM e.to_status))))::text AS history,
    (( SELECT COALESCE(json_agg(json_build_object('role', c.role, 'text', c.text, 'at', c.at) ORDER BY c.id), '[]'::json) AS "coalesce"
           FROM public.order_chat c
          WHERE (c.order_id = o.id)))::text AS chat
   FROM ((public.orders_with_lines o
     JOIN public.users u ON ((u.id = o.user_id)))
     LEFT JOIN LATERAL ( SELECT y.provider,
            y.status,
            y.url,
            y.amount_minor
           FROM public.payments y
          WHERE (y.order_id = o.id)
          ORDER BY (y.status = 'paid'::text) DESC, y.id DESC
         LIMIT 1) p ON (true));

ALTER TABLE public.order_chat ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.order_chat_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.order_events ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.order_events_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW public.staff AS
 SELECT id AS user_id,
    role,
    seller_id
   FROM public.users u
  WHERE ((role = 'admin'::text) OR ((role = 'seller'::text) AND (seller_id IS NOT NULL)));

CREATE VIEW public.order_people AS
 SELECT o.id AS order_id,
    o.user_id,
    'buyer'::text AS role
   FROM public.orders o
UNION ALL
 SELECT o.id AS order_id,
    s.user_id,
    s.role
   FROM (public.orders o
     JOIN public.staff s ON (((s.role = 'admin'::text) OR (s.seller_id = o.seller_id))));

ALTER TABLE public.orders ALTER COLUMN number ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.orders_number_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.outbox (
    id bigint NOT NULL,
    kind text NOT NULL,
    key text NOT NULL,
    payload jsonb NOT NULL,
    state text DEFAULT 'owed'::text NOT NULL,
    run_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    attempt_id uuid,
    lease_until timestamp with time zone,
    last_error text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    done_at timestamp with time zone,
    aggregate text,
    orphaned integer DEFAULT 0 NOT NULL,
    died_at timestamp with time zone,
    history text DEFAULT ''::text NOT NULL,
    CONSTRAINT outbox_aggregate_check CHECK (((length(aggregate) >= 1) AND (length(aggregate) <= 200))),
    CONSTRAINT outbox_kind_check CHECK ((kind ~ '^[a-z_]{1,40}$'::text)),
    CONSTRAINT outbox_state_check CHECK ((state = ANY (ARRAY['owed'::text, 'done'::text, 'dead'::text, 'dropped'::text])))
);

ALTER TABLE public.outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.payments ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.payments_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.postings ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.postings_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.product_ratings (
    product_id bigint NOT NULL,
    ratings integer NOT NULL,
    total bigint NOT NULL,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT product_ratings_check CHECK (((total >= ratings) AND (total <= (5 * (ratings)::bigint)))),
    CONSTRAINT product_ratings_ratings_check CHECK ((ratings >= 0))
);

ALTER TABLE public.products ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.products_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE public.promos ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.promos_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.quotas (
    provider text NOT NULL,
    calls double precision NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT quotas_calls_check CHECK ((calls >= (0)::double precision)),
    CONSTRAINT quotas_provider_check CHECK ((provider ~ '^[a-z]{1,32}$'::text))
);

CREATE TABLE public.referral_bonuses (
    order_id uuid NOT NULL,
    level integer NOT NULL,
    user_id bigint NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    clawed_minor bigint DEFAULT 0 NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT referral_bonuses_amount_minor_check CHECK ((amount_minor > 0)),
    CONSTRAINT referral_bonuses_check CHECK (((clawed_minor >= 0) AND (clawed_minor <= amount_minor))),
    CONSTRAINT referral_bonuses_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT referral_bonuses_level_check CHECK (((level >= 1) AND (level <= 3)))
);

CREATE TABLE public.refunds (
    id uuid NOT NULL,
    order_id uuid NOT NULL,
    payment_id bigint,
    target text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    state text NOT NULL,
    gateway_id text DEFAULT ''::text NOT NULL,
    reason text NOT NULL,
    note text DEFAULT ''::text NOT NULL,
    user_id bigint,
    key text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    done_at timestamp with time zone,
    CONSTRAINT refunds_amount_minor_check CHECK ((amount_minor > 0)),
    CONSTRAINT refunds_check CHECK (((target = 'rail'::text) = (payment_id IS NOT NULL))),
    CONSTRAINT refunds_currency_check CHECK ((currency ~ '^[A-Z]{3}$'::text)),
    CONSTRAINT refunds_key_check CHECK (((length(key) >= 1) AND (length(key) <= 300))),
    CONSTRAINT refunds_note_check CHECK ((length(note) <= 500)),
    CONSTRAINT refunds_reason_check CHECK ((reason = ANY (ARRAY['admin'::text, 'overdue'::text, 'cancelled'::text]))),
    CONSTRAINT refunds_state_check CHECK ((state = ANY (ARRAY['owed'::text, 'done'::text, 'refused'::text]))),
    CONSTRAINT refunds_target_check CHECK ((target = ANY (ARRAY['balance'::text, 'rail'::text])))
);

CREATE TABLE public.reviews (
    id bigint NOT NULL,
    product_id bigint NOT NULL,
    user_id bigint NOT NULL,
    order_id uuid NOT NULL,
    rating integer NOT NULL,
    text text DEFAULT ''::text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    edited_at timestamp with time zone,
    CONSTRAINT reviews_rating_check CHECK (((rating >= 1) AND (rating <= 5))),
    CONSTRAINT reviews_text_check CHECK ((length(text) <= 2000))
);

ALTER TABLE public.reviews ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.reviews_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.schema_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE public.sellers ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.sellers_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW public.shelf AS
 SELECT p.id,
    p.title,
    p.description,
    p.category,
    p.kind,
    p.seller_id,
    s.name AS seller_name,
    p.currency,
    p.list_price_minor,
    COALESCE(n.final_price_minor, p.list_price_minor) AS price_minor,
    COALESCE(n.discount_bp, 0) AS discount_bp,
        CASE
            WHEN (p.kind = ANY (ARRAY['unit'::text, 'shipped'::text])) THEN u.units
            WHEN (n.product_id IS NULL) THEN 0
            ELSE NULL::integer
        END AS units_left,
    p.lead_time_h,
    COALESCE(r.ratings, 0) AS ratings,
    COALESCE(r.total, (0)::bigint) AS rating_total
   FROM ((((public.products p
     JOIN public.sellers s ON ((s.id = p.seller_id)))
     LEFT JOIN public.product_ratings r ON ((r.product_id = p.id)))
     CROSS JOIN LATERAL ( SELECT (count(*))::integer AS units
           FROM public.available_stock_with_discounts v
          WHERE (v.product_id = p.id)) u)
     LEFT JOIN LATERAL ( SELECT v.product_id,
            v.final_price_minor,
            v.discount_bp
           FROM public.available_stock_with_discounts v
          WHERE (v.product_id = p.id)
          ORDER BY v.item_discount_bp DESC, v.received_at, v.stock_item_id
         LIMIT 1) n ON (true))
  WHERE p.active;

CREATE VIEW public.stock_with_promos AS
 SELECT a.stock_item_id,
    a.product_id,
    a.seller_id,
    a.title,
    a.kind,
    a.currency,
    a.list_price_minor,
    a.discount_bp,
    a.final_price_minor,
    a.item_discount_bp,
    a.received_at,
    ''::text AS code,
    a.final_price_minor AS price_minor
   FROM public.available_stock_with_discounts a
UNION ALL
 SELECT a.stock_item_id,
    a.product_id,
    a.seller_id,
    a.title,
    a.kind,
    a.currency,
    a.list_price_minor,
    a.discount_bp,
    a.final_price_minor,
    a.item_discount_bp,
    a.received_at,
    p.code,
        CASE
            WHEN ((p.product_id IS NULL) OR (p.product_id = a.product_id)) THEN LEAST(a.final_price_minor, GREATEST((1)::bigint, (((a.list_price_minor * (10000 - p.discount_bp)) + 5000) / 10000)))
            ELSE a.final_price_minor
        END AS price_minor
   FROM (public.available_stock_with_discounts a
     CROSS JOIN public.promos p);

CREATE TABLE public.summons (
    id text NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT summons_id_check CHECK (((length(id) >= 1) AND (length(id) <= 200)))
);

CREATE TABLE public.turns (
    id uuid NOT NULL,
    conversation_id bigint NOT NULL,
    state text NOT NULL,
    question text NOT NULL,
    answer text DEFAULT ''::text NOT NULL,
    answered_by text DEFAULT ''::text NOT NULL,
    offers jsonb DEFAULT '[]'::jsonb NOT NULL,
    quality real,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    answered_at timestamp with time zone,
    sending_at timestamp with time zone,
    sent_at timestamp with time zone,
    CONSTRAINT turns_answered_by_check CHECK ((answered_by = ANY (ARRAY[''::text, 'model'::text, 'search'::text, 'texts'::text, 'agent'::text]))),
    CONSTRAINT turns_quality_check CHECK (((quality >= (0)::double precision) AND (quality <= (1)::double precision))),
    CONSTRAINT turns_state_check CHECK ((state = ANY (ARRAY['open'::text, 'answered'::text, 'duplicate'::text, 'silent'::text, 'escalated'::text, 'noted'::text])))
);

ALTER TABLE public.users ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.users_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE ONLY public.balances
    ADD CONSTRAINT balances_pkey PRIMARY KEY (user_id, currency);

ALTER TABLE ONLY public.broadcasts
    ADD CONSTRAINT broadcasts_draft_key UNIQUE (draft);

ALTER TABLE ONLY public.broadcasts
    ADD CONSTRAINT broadcasts_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.cart_lines
    ADD CONSTRAINT cart_lines_pkey PRIMARY KEY (user_id, product_id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.channels
    ADD CONSTRAINT channels_kind_external_id_key UNIQUE (kind, external_id);

ALTER TABLE ONLY public.channels
    ADD CONSTRAINT channels_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_channel_id_peer_key UNIQUE (channel_id, peer);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.inbox
    ADD CONSTRAINT inbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.inbox
    ADD CONSTRAINT inbox_provider_event_key_key UNIQUE (provider, event_key);

ALTER TABLE ONLY public.made_goods
    ADD CONSTRAINT made_goods_pkey PRIMARY KEY (order_id, "position");

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_conversation_id_external_id_key UNIQUE (conversation_id, external_id);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.order_chat
    ADD CONSTRAINT order_chat_event_id_key UNIQUE (event_id);

ALTER TABLE ONLY public.order_chat
    ADD CONSTRAINT order_chat_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.order_events
    ADD CONSTRAINT order_events_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_pkey PRIMARY KEY (order_id, "position");

ALTER TABLE ONLY public.order_moves
    ADD CONSTRAINT order_moves_pkey PRIMARY KEY (from_status, to_status, role);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_number_key UNIQUE (number);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_paid_by_key UNIQUE (paid_by);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_user_id_idempotency_key_key UNIQUE (user_id, idempotency_key);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_kind_key_key UNIQUE (kind, key);

ALTER TABLE ONLY public.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_provider_invoice_id_key UNIQUE (provider, invoice_id);

ALTER TABLE ONLY public.postings
    ADD CONSTRAINT postings_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.postings
    ADD CONSTRAINT postings_reference_key UNIQUE (reference);

ALTER TABLE ONLY public.product_ratings
    ADD CONSTRAINT product_ratings_pkey PRIMARY KEY (product_id);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.promos
    ADD CONSTRAINT promos_code_key UNIQUE (code);

ALTER TABLE ONLY public.promos
    ADD CONSTRAINT promos_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.quotas
    ADD CONSTRAINT quotas_pkey PRIMARY KEY (provider);

ALTER TABLE ONLY public.referral_bonuses
    ADD CONSTRAINT referral_bonuses_pkey PRIMARY KEY (order_id, level);

ALTER TABLE ONLY public.refunds
    ADD CONSTRAINT refunds_order_id_key_key UNIQUE (order_id, key);

ALTER TABLE ONLY public.refunds
    ADD CONSTRAINT refunds_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.reviews
    ADD CONSTRAINT reviews_id_key UNIQUE (id);

ALTER TABLE ONLY public.reviews
    ADD CONSTRAINT reviews_pkey PRIMARY KEY (product_id, user_id);

ALTER TABLE ONLY public.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (version);

ALTER TABLE ONLY public.sellers
    ADD CONSTRAINT sellers_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.shared_goods
    ADD CONSTRAINT shared_goods_pkey PRIMARY KEY (product_id);

ALTER TABLE ONLY public.stock_items
    ADD CONSTRAINT stock_items_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.stock_items
    ADD CONSTRAINT stock_items_product_id_fingerprint_key UNIQUE (product_id, fingerprint);

ALTER TABLE ONLY public.summons
    ADD CONSTRAINT summons_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_telegram_id_key UNIQUE (telegram_id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_whatsapp_key UNIQUE (whatsapp);

CREATE UNIQUE INDEX broadcasts_under_way ON public.broadcasts USING btree (audience, md5((texts)::text)) WHERE (state = ANY (ARRAY['running'::text, 'paused'::text]));

CREATE UNIQUE INDEX changes_batch_once ON public.changes USING btree (user_id, batch) WHERE (batch IS NOT NULL);

CREATE INDEX changes_of_noun ON public.changes USING btree (noun_id, id);

CREATE INDEX conversations_escalated ON public.conversations USING btree (escalated_at, id) WHERE (escalated_at IS NOT NULL);

CREATE INDEX conversations_of_user ON public.conversations USING btree (user_id);

CREATE INDEX endpoints_of_seller ON public.endpoints USING btree (seller_id) WHERE (deleted_at IS NULL);

CREATE INDEX inbox_review ON public.inbox USING btree (order_id) WHERE (state = 'review'::text);

CREATE INDEX messages_of_conversation ON public.messages USING btree (conversation_id, at DESC, id DESC);

CREATE INDEX order_chat_of_order ON public.order_chat USING btree (order_id, id);

CREATE INDEX order_events_of_order ON public.order_events USING btree (order_id, id);

CREATE INDEX order_items_delivered ON public.order_items USING btree (delivered_at) WHERE (state = 'delivered'::text);

CREATE UNIQUE INDEX order_items_item_once ON public.order_items USING btree (stock_item_id) WHERE (state <> 'released'::text);

CREATE INDEX order_items_owed ON public.order_items USING btree (due_at) WHERE ((state = 'owed'::text) AND (due_at IS NOT NULL));

CREATE INDEX orders_of_user ON public.orders USING btree (user_id, number DESC);

CREATE UNIQUE INDEX orders_pending_slot ON public.orders USING btree (user_id, slot) WHERE ((status = 'pending'::text) AND (slot IS NOT NULL));

CREATE UNIQUE INDEX orders_promo_slot ON public.orders USING btree (user_id, promo_id, promo_slot) WHERE ((promo_id IS NOT NULL) AND (promo_slot IS NOT NULL) AND ((status <> ALL (ARRAY['expired'::text, 'cancelled'::text])) OR (paid_at IS NOT NULL)));

CREATE INDEX orders_unpaid ON public.orders USING btree (expires_at) WHERE ((status = 'pending'::text) AND (expires_at > '-infinity'::timestamp with time zone));

CREATE INDEX outbox_calls ON public.outbox USING btree (((payload ->> 'endpoint_id'::text)), id DESC) WHERE (kind = 'hook'::text);

CREATE INDEX outbox_dead ON public.outbox USING btree (id) WHERE (state = 'dead'::text);

CREATE INDEX outbox_line ON public.outbox USING btree (aggregate, id) WHERE ((state = 'owed'::text) AND (aggregate IS NOT NULL));

CREATE INDEX outbox_mail ON public.outbox USING btree (run_at) WHERE ((state = 'owed'::text) AND (kind = 'email'::text) AND (run_at > '-infinity'::timestamp with time zone));

CREATE INDEX outbox_owed ON public.outbox USING btree (run_at) WHERE ((state = 'owed'::text) AND (run_at > '-infinity'::timestamp with time zone));

CREATE INDEX outbox_settling ON public.outbox USING btree (((payload ->> 'invoice_id'::text))) WHERE ((kind = 'settle'::text) AND (state = ANY (ARRAY['owed'::text, 'dead'::text])));

CREATE INDEX payments_of_order ON public.payments USING btree (order_id);

CREATE UNIQUE INDEX payments_one_current ON public.payments USING btree (order_id, provider) WHERE (status = ANY (ARRAY['opening'::text, 'failed'::text, 'open'::text]));

CREATE UNIQUE INDEX payments_paid_once ON public.payments USING btree (order_id) WHERE (status = 'paid'::text);

CREATE INDEX payments_to_poll ON public.payments USING btree (poll_at) WHERE (poll_at IS NOT NULL);

CREATE INDEX postings_of_order ON public.postings USING btree (order_id) WHERE (order_id IS NOT NULL);

CREATE INDEX postings_of_user ON public.postings USING btree (user_id, id DESC) WHERE (user_id IS NOT NULL);

CREATE INDEX products_category ON public.products USING btree (category, id) WHERE active;

CREATE INDEX products_search ON public.products USING gin (search) WITH (fastupdate=off) WHERE active;

CREATE INDEX products_shelf ON public.products USING btree (id) WHERE active;

CREATE INDEX referral_bonuses_of_user ON public.referral_bonuses USING btree (user_id);

CREATE INDEX refunds_of_order ON public.refunds USING btree (order_id, at);

CREATE INDEX reviews_newest ON public.reviews USING btree (product_id, id DESC);

CREATE INDEX stock_items_line ON public.stock_items USING btree (product_id, discount_bp DESC, received_at, id) WHERE (state = 'available'::text);

CREATE INDEX stock_items_listed ON public.stock_items USING btree (product_id, id);

CREATE INDEX summons_past ON public.summons USING btree (expires_at);

CREATE INDEX turns_of_conversation ON public.turns USING btree (conversation_id, created_at DESC);

CREATE INDEX users_of_seller ON public.users USING btree (seller_id) WHERE (seller_id IS NOT NULL);

CREATE INDEX users_referred ON public.users USING btree (referrer_id) WHERE (referrer_id IS NOT NULL);

CREATE TRIGGER order_events_owe AFTER INSERT ON public.order_events REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION public.owe_announcements();

ALTER TABLE ONLY public.balances
    ADD CONSTRAINT balances_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.broadcasts
    ADD CONSTRAINT broadcasts_created_by_fkey FOREIGN KEY (created_by) REFERENCES public.users(id);

ALTER TABLE ONLY public.cart_lines
    ADD CONSTRAINT cart_lines_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.cart_lines
    ADD CONSTRAINT cart_lines_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES public.channels(id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES public.endpoints(id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_noun_id_fkey FOREIGN KEY (noun_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_promo_id_fkey FOREIGN KEY (promo_id) REFERENCES public.promos(id);

ALTER TABLE ONLY public.changes
    ADD CONSTRAINT changes_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.channels
    ADD CONSTRAINT channels_endpoint_id_fkey FOREIGN KEY (endpoint_id) REFERENCES public.endpoints(id);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_channel_id_fkey FOREIGN KEY (channel_id) REFERENCES public.channels(id);

ALTER TABLE ONLY public.conversations
    ADD CONSTRAINT conversations_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.endpoints
    ADD CONSTRAINT endpoints_seller_id_fkey FOREIGN KEY (seller_id) REFERENCES public.sellers(id);

ALTER TABLE ONLY public.inbox
    ADD CONSTRAINT inbox_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.made_goods
    ADD CONSTRAINT made_goods_order_id_position_fkey FOREIGN KEY (order_id, "position") REFERENCES public.order_items(order_id, "position");

ALTER TABLE ONLY public.made_goods
    ADD CONSTRAINT made_goods_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(id);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_turn_id_fkey FOREIGN KEY (turn_id) REFERENCES public.turns(id);

ALTER TABLE ONLY public.messages
    ADD CONSTRAINT messages_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.order_chat
    ADD CONSTRAINT order_chat_event_id_fkey FOREIGN KEY (event_id) REFERENCES public.order_events(id);

ALTER TABLE ONLY public.order_chat
    ADD CONSTRAINT order_chat_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.order_events
    ADD CONSTRAINT order_events_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.order_events
    ADD CONSTRAINT order_events_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.order_items
    ADD CONSTRAINT order_items_stock_item_id_fkey FOREIGN KEY (stock_item_id) REFERENCES public.stock_items(id);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_promo_id_fkey FOREIGN KEY (promo_id) REFERENCES public.promos(id);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_seller_id_fkey FOREIGN KEY (seller_id) REFERENCES public.sellers(id);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.payments
    ADD CONSTRAINT payments_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.postings
    ADD CONSTRAINT postings_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.postings
    ADD CONSTRAINT postings_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.product_ratings
    ADD CONSTRAINT product_ratings_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.products
    ADD CONSTRAINT products_seller_id_fkey FOREIGN KEY (seller_id) REFERENCES public.sellers(id);

ALTER TABLE ONLY public.promos
    ADD CONSTRAINT promos_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.promos
    ADD CONSTRAINT promos_seller_id_fkey FOREIGN KEY (seller_id) REFERENCES public.sellers(id);

ALTER TABLE ONLY public.referral_bonuses
    ADD CONSTRAINT referral_bonuses_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.referral_bonuses
    ADD CONSTRAINT referral_bonuses_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.refunds
    ADD CONSTRAINT refunds_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.refunds
    ADD CONSTRAINT refunds_payment_id_fkey FOREIGN KEY (payment_id) REFERENCES public.payments(id);

ALTER TABLE ONLY public.refunds
    ADD CONSTRAINT refunds_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.reviews
    ADD CONSTRAINT reviews_order_id_fkey FOREIGN KEY (order_id) REFERENCES public.orders(id);

ALTER TABLE ONLY public.reviews
    ADD CONSTRAINT reviews_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.reviews
    ADD CONSTRAINT reviews_user_id_fkey FOREIGN KEY (user_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.shared_goods
    ADD CONSTRAINT shared_goods_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.stock_items
    ADD CONSTRAINT stock_items_product_id_fkey FOREIGN KEY (product_id) REFERENCES public.products(id);

ALTER TABLE ONLY public.turns
    ADD CONSTRAINT turns_conversation_id_fkey FOREIGN KEY (conversation_id) REFERENCES public.conversations(id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_referrer_id_fkey FOREIGN KEY (referrer_id) REFERENCES public.users(id);

ALTER TABLE ONLY public.users
    ADD CONSTRAINT users_seller_id_fkey FOREIGN KEY (seller_id) REFERENCES public.sellers(id);
