-- Both of the other two indexes find one's orders in a state only by reading all of one's own or all in that state,
-- and SQLite chose the latter: everybody's, 0.1 s for 300,000 orders.
CREATE INDEX orders_of_user_by_status ON orders (user_id, status, id);
