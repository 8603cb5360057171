-- Double entry: a transaction has two entries that add up to 0, and an account's balance is the sum of its entries.
CREATE TABLE accounts (
    id         text COLLATE "C" PRIMARY KEY,
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('user', 'system', 'shop')),
    owner_id   text COLLATE "C" REFERENCES users (id),      -- NULL for internal accounts: system and shop
    currency   text COLLATE "C" NOT NULL,
    balance    bigint NOT NULL,
    created_at bigint NOT NULL,
    CHECK ((kind = 'user') = (owner_id IS NOT NULL)),
    CHECK (balance >= 0 OR kind = 'system')
);

-- A page of a user's accounts is one range.
CREATE INDEX accounts_of_owner ON accounts (owner_id, id);

-- A currency has at most one system account and one shop account.
CREATE UNIQUE INDEX internal_accounts ON accounts (currency, kind) WHERE kind <> 'user';

-- Money that moved between two accounts.
CREATE TABLE transactions (
    id              text COLLATE "C" PRIMARY KEY,
    type            text COLLATE "C" NOT NULL CHECK (type IN ('deposit', 'withdrawal', 'transfer', 'payment', 'refund')),
    from_account_id text COLLATE "C" NOT NULL REFERENCES accounts (id),
    to_account_id   text COLLATE "C" NOT NULL REFERENCES accounts (id),
    amount          bigint NOT NULL CHECK (amount BETWEEN 1 AND 1000000000000),
    currency        text COLLATE "C" NOT NULL,
    memo            text COLLATE "C",
    order_id        text COLLATE "C",                       -- of a payment or refund
    created_at      bigint NOT NULL,
    CHECK (from_account_id <> to_account_id)
);

-- The two sides of each transaction. A page of an account's statement is one range of the key.
CREATE TABLE entries (
    account_id     text COLLATE "C" NOT NULL REFERENCES accounts (id),
    transaction_id text COLLATE "C" NOT NULL REFERENCES transactions (id),
    amount         bigint NOT NULL,            -- negative on the side that the money leaves
    PRIMARY KEY (account_id, transaction_id)
);
