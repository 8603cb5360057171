-- Double entry: a transaction has two entries that add up to 0, and an account's balance is the sum of its entries.
CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'system', 'shop')),
    owner_id   TEXT REFERENCES users (id),      -- NULL for internal accounts: system and shop
    currency   TEXT NOT NULL,
    balance    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    CHECK ((kind = 'user') = (owner_id IS NOT NULL)),
    CHECK (balance >= 0 OR kind = 'system')
) STRICT, WITHOUT ROWID;

-- A page of a user's accounts is one range.
CREATE INDEX accounts_of_owner ON accounts (owner_id, id);

-- A currency has at most one system account and one shop account.
CREATE UNIQUE INDEX internal_accounts ON accounts (currency, kind) WHERE kind <> 'user';

-- Money that moved between two accounts.
CREATE TABLE transactions (
    id              TEXT PRIMARY KEY,
    type            TEXT NOT NULL CHECK (type IN ('deposit', 'withdrawal', 'transfer', 'payment', 'refund')),
    from_account_id TEXT NOT NULL REFERENCES accounts (id),
    to_account_id   TEXT NOT NULL REFERENCES accounts (id),
    amount          INTEGER NOT NULL CHECK (amount BETWEEN 1 AND 1000000000000),
    currency        TEXT NOT NULL,
    memo            TEXT,
    order_id        TEXT,                       -- of a payment or refund
    created_at      INTEGER NOT NULL,
    CHECK (from_account_id <> to_account_id)
) STRICT, WITHOUT ROWID;

-- The two sides of each transaction. A page of an account's statement is one range of the key.
CREATE TABLE entries (
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    transaction_id TEXT NOT NULL REFERENCES transactions (id),
    amount         INTEGER NOT NULL,            -- negative on the side that the money leaves
    PRIMARY KEY (account_id, transaction_id)
) STRICT, WITHOUT ROWID;
