-- What every worker's cache must forget, in the order of commits, whoever wrote.
CREATE TABLE cache_invalidations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL
) STRICT;

CREATE TRIGGER users_invalidate AFTER UPDATE ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || OLD.id);
END;
CREATE TRIGGER users_created AFTER INSERT ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || NEW.id);
END;
CREATE TRIGGER users_removed AFTER DELETE ON users BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('users:' || OLD.id);
END;
CREATE TRIGGER sessions_invalidate AFTER UPDATE ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || OLD.id);
END;
CREATE TRIGGER sessions_created AFTER INSERT ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || NEW.id);
END;
CREATE TRIGGER sessions_removed AFTER DELETE ON sessions BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('sessions:' || OLD.id);
END;
CREATE TRIGGER products_invalidate AFTER UPDATE ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || OLD.id), ('products');
END;
CREATE TRIGGER products_created AFTER INSERT ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || NEW.id), ('products');
END;
CREATE TRIGGER products_removed AFTER DELETE ON products BEGIN
    INSERT INTO cache_invalidations (key) VALUES ('products:' || OLD.id), ('products');
END;
