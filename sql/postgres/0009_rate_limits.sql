-- What the limits that all hosts share have counted. Unlogged: a crash of the server forgets it.
CREATE UNLOGGED TABLE rate_limits (
    subject text COLLATE "C" PRIMARY KEY,           -- with the name of the policy
    arrival bigint NOT NULL                         -- nanoseconds since 1970: when the whole quota is back
);

-- Finds the rows that mean the same as none.
CREATE INDEX rate_limits_by_arrival ON rate_limits (arrival);
