-- Where the logins of a deleted user came from is erased. Those of a user that still tell it are a range of this index.
CREATE INDEX sessions_with_origin ON sessions (user_id) WHERE user_agent <> '' OR ip <> '';

UPDATE sessions SET user_agent = '', ip = '', network = ''
WHERE user_id IN (SELECT id FROM users WHERE email_key = 'deleted-' || id || '@invalid');
