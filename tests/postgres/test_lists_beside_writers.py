"""Lists while others write: here the order of ids is not the order of commits.

A row that existed when the first page was read appears once in the pages. A row that is committed later, with an id
among those that have been read already, appears behind the reader: in the next reading.
"""

import threading
from collections import Counter

from backend.domain import Product
from backend.infrastructure.ids import new_id
from backend.repositories import products
from tests.at_once import at_once

WRITERS, TRANSFERS, READINGS = 6, 25, 10
ENTRIES = "SELECT transaction_id FROM entries WHERE account_id = %s"


def pages(api, path, by, size):
    """The ids of each page."""
    cursor = ""
    while cursor is not None:
        answer = api.get(f"{path}?limit={size}{cursor and f'&cursor={cursor}'}", by)
        assert answer.status_code == 200, answer.text
        yield [row["id"] for row in answer.json["data"]]
        cursor = answer.json["meta"]["pagination"]["nextCursor"]


def test_a_row_that_is_committed_late_appears_behind_the_reader(api, admin):
    before = [api.product(admin, f"SKU-{n}") for n in range(9)]
    written, commit, late = threading.Event(), threading.Event(), new_id()

    def write_late():
        with api.app.database.transaction() as tx:
            products.insert(tx, Product(late, "LATE", "Late", 1, "EUR", 1, 1, tx.now, tx.now))
            written.set()
            assert commit.wait(60)
        api.app.database.close()

    def read():
        assert written.wait(60)
        newer = api.product(admin, "NEWER")
        reading = pages(api, "/products", None, 4)
        first = next(reading)
        commit.set()
        writer.join()
        assert first[0] == newer
        return [*first, *(id_ for page in reading for id_ in page)]

    writer = threading.Thread(target=write_late)
    writer.start()
    read_ids = read()
    assert Counter(read_ids) == Counter([read_ids[0], *before])
    assert late in next(pages(api, "/products", None, 4))


def test_pages_beside_many_writers_show_each_row_that_was_there_once(make_api, outsider):
    apis = [make_api(), make_api()]
    admin, ada = apis[0].admin(), apis[0].sign_up("Ada")
    source, target = apis[0].account(ada, balance=10_000, admin=admin), apis[0].account(ada)
    body = {"fromAccountId": source, "toAccountId": target, "amount": 1}

    def transfer(api):
        for _ in range(TRANSFERS):
            assert api.post("/transfers", ada, body).status_code == 201

    def read(api):
        for _ in range(READINGS):
            there = {id_ for (id_,) in outsider.execute(ENTRIES, (source,))}
            seen = Counter(id_ for page in pages(api, f"/accounts/{source}/transactions", ada, 7) for id_ in page)
            assert there <= seen.keys()
            assert max(seen.values()) == 1

    at_once([lambda: read(apis[0]), *(lambda n=n: transfer(apis[n % 2]) for n in range(WRITERS))])
    assert apis[0].balance(target, ada) == WRITERS * TRANSFERS
