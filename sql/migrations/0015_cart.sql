-- What the consultant has put aside for a buyer, until the Mini App takes it into its cart.

CREATE TABLE cart_lines (
    user_id    bigint NOT NULL REFERENCES users,
    product_id bigint NOT NULL REFERENCES products,
    quantity   integer NOT NULL CHECK (quantity BETWEEN 1 AND 99),
    added_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, product_id)
);
