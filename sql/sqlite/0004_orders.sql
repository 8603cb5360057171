CREATE TABLE orders (
    id         TEXT PRIMARY KEY,
    user_id    TEXT NOT NULL REFERENCES users (id),
    account_id TEXT NOT NULL REFERENCES accounts (id),
    status     TEXT NOT NULL CHECK (status IN ('placed', 'cancelled', 'fulfilled')),
    currency   TEXT NOT NULL,
    total      INTEGER NOT NULL CHECK (total BETWEEN 1 AND 1000000000000),
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A page of orders is one range, whatever it is filtered by: user, status or both.
CREATE INDEX orders_of_user ON orders (user_id, id);
CREATE INDEX orders_by_status ON orders (status, id);
CREATE INDEX orders_of_user_by_status ON orders (user_id, status, id);

-- What was ordered, with SKU, name and price as they were at the time.
CREATE TABLE order_items (
    order_id   TEXT NOT NULL REFERENCES orders (id),
    position   INTEGER NOT NULL,                -- in the request
    product_id TEXT NOT NULL REFERENCES products (id),
    sku        TEXT NOT NULL,
    name       TEXT NOT NULL,
    quantity   INTEGER NOT NULL CHECK (quantity BETWEEN 1 AND 1000),
    unit_price INTEGER NOT NULL,
    PRIMARY KEY (order_id, position),
    UNIQUE (order_id, product_id)
) STRICT, WITHOUT ROWID;
