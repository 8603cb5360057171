-- The log by which the caches of several processes stay coherent. Triggers write it in the transaction that changes a
-- row, so no writer can forget it, not even the `sqlite3` shell. The cache of `backend/production/` reads it: before a
-- lookup, each process drops the keys that were logged since its last one. The core's cache, for one process, does not.
CREATE TABLE cache_invalidations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,      -- rises in the order of commits
    key TEXT NOT NULL                           -- a tag of cached values
) STRICT;

-- One user.
CREATE TRIGGER users_inserted AFTER INSERT ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || NEW.id);
END;
CREATE TRIGGER users_updated AFTER UPDATE ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || OLD.id);
END;
CREATE TRIGGER users_deleted AFTER DELETE ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || OLD.id);
END;

-- One session.
CREATE TRIGGER sessions_inserted AFTER INSERT ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || NEW.id);
END;
CREATE TRIGGER sessions_updated AFTER UPDATE ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || OLD.id);
END;
CREATE TRIGGER sessions_deleted AFTER DELETE ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || OLD.id);
END;

-- One product, and every page of the catalogue.
CREATE TRIGGER products_inserted AFTER INSERT ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || NEW.id), ('products');
END;
CREATE TRIGGER products_updated AFTER UPDATE ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || OLD.id), ('products');
END;
CREATE TRIGGER products_deleted AFTER DELETE ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || OLD.id), ('products');
END;
