-- Which client a login came from, as the rate limits tell clients apart: an IPv4 address, or the /64 of an IPv6 one.
-- (SQL cannot cut an address to its /64: clients with IPv6 are known again after their next login.)
ALTER TABLE sessions ADD COLUMN network TEXT NOT NULL DEFAULT '';
UPDATE sessions SET network = ip;
CREATE INDEX sessions_by_network ON sessions (user_id, network, created_at);
