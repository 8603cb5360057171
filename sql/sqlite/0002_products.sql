-- The catalogue. `stock` is what can still be ordered.
CREATE TABLE products (
    id         TEXT PRIMARY KEY,
    sku        TEXT NOT NULL UNIQUE,
    name       TEXT NOT NULL,
    unit_price INTEGER NOT NULL CHECK (unit_price BETWEEN 1 AND 1000000000000),
    currency   TEXT NOT NULL,
    stock      INTEGER NOT NULL CHECK (stock >= 0),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
