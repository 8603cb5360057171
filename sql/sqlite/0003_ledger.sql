-- Double entry: every transaction has two entries that add up to 0; a balance is the sum of its account's entries.
CREATE TABLE accounts (
    id         TEXT PRIMARY KEY,
    kind       TEXT NOT NULL CHECK (kind IN ('user', 'system', 'shop')),
    owner_id   TEXT REFERENCES users (id),
    currency   TEXT NOT NULL,
    balance    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    CHECK ((kind = 'user') = (owner_id IS NOT NULL)),
    CHECK (balance >= 0 OR kind = 'system')
) STRICT, WITHOUT ROWID;
CREATE INDEX accounts_of_owner ON accounts (owner_id, id);
CREATE UNIQUE INDEX accounts_of_the_house ON accounts (currency, kind) WHERE kind <> 'user';

CREATE TABLE transactions (
    id              TEXT PRIMARY KEY,
    type            TEXT NOT NULL CHECK (type IN ('deposit', 'withdrawal', 'transfer', 'payment', 'refund')),
    from_account_id TEXT NOT NULL REFERENCES accounts (id),
    to_account_id   TEXT NOT NULL REFERENCES accounts (id),
    amount          INTEGER NOT NULL CHECK (amount BETWEEN 1 AND 1000000000000),
    currency        TEXT NOT NULL,
    memo            TEXT,
    order_id        TEXT,
    created_at      INTEGER NOT NULL,
    CHECK (from_account_id <> to_account_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE entries (
    account_id     TEXT NOT NULL REFERENCES accounts (id),
    transaction_id TEXT NOT NULL REFERENCES transactions (id),
    amount         INTEGER NOT NULL,
    PRIMARY KEY (account_id, transaction_id)    -- an account's statement, newest last, is one range of this key
) STRICT, WITHOUT ROWID;
