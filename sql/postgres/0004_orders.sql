CREATE TABLE orders (
    id         text COLLATE "C" PRIMARY KEY,
    user_id    text COLLATE "C" NOT NULL REFERENCES users (id),
    account_id text COLLATE "C" NOT NULL REFERENCES accounts (id),
    status     text COLLATE "C" NOT NULL CHECK (status IN ('placed', 'cancelled', 'fulfilled')),
    currency   text COLLATE "C" NOT NULL,
    total      bigint NOT NULL CHECK (total BETWEEN 1 AND 1000000000000),
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);

-- A page of orders is one range, whatever it is filtered by: user, status or both.
CREATE INDEX orders_of_user ON orders (user_id, id);
CREATE INDEX orders_by_status ON orders (status, id);
CREATE INDEX orders_of_user_by_status ON orders (user_id, status, id);

-- What was ordered, with SKU, name and price as they were at the time.
CREATE TABLE order_items (
    order_id   text COLLATE "C" NOT NULL REFERENCES orders (id),
    position   bigint NOT NULL,                -- in the request
    product_id text COLLATE "C" NOT NULL REFERENCES products (id),
    sku        text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    quantity   bigint NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    unit_price bigint NOT NULL,
    PRIMARY KEY (order_id, position),
    UNIQUE (order_id, product_id)
);
