-- The catalogue. `stock` is what can still be ordered.
CREATE TABLE products (
    id         text COLLATE "C" PRIMARY KEY,
    sku        text COLLATE "C" NOT NULL UNIQUE,
    name       text COLLATE "C" NOT NULL,
    unit_price bigint NOT NULL CHECK (unit_price BETWEEN 1 AND 1000000000000),
    currency   text COLLATE "C" NOT NULL,
    stock      bigint NOT NULL CHECK (stock >= 0),
    version    bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
