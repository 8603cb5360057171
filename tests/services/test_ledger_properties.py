"""No sequence of operations creates or loses money, and stock plus sales stay constant."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from backend.domain import Caller, IdempotentRequest, Product, Timestamp, User
from backend.errors import Conflict, CurrencyMismatch, InsufficientFunds, NotFound, OutOfStock
from backend.infrastructure.cache import NoCache
from backend.infrastructure.database import Database
from backend.infrastructure.ids import new_id
from backend.repositories import accounts, products, sessions, transactions, users
from backend.repositories.sessions import Login
from backend.services.events import EventBus
from backend.services.ledger import Ledger
from backend.services.orders import Orders

CURRENCIES = ("EUR", "USD")
STOCK = 5
DAY = 86_400_000  # milliseconds
ONCE = IdempotentRequest(None, b"")
AMOUNTS = st.integers(1, 60)


@pytest.fixture(autouse=True, scope="module")
def template(migrated):
    Shop.template = migrated


class Shop:
    """The services on a database of their own, with two users and, in each currency, two products."""

    template: Path  # a migrated database

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(shutil.copy(self.template, self._folder.name)))
        events = EventBus()
        self.ledger = Ledger(self.database, events)
        self.orders = Orders(self.database, NoCache(self.database), self.ledger, events)
        with self.database.transaction() as tx:
            people = [User(new_id(), f"{n}@example.com", n, ("user",), True, 1, tx.now, tx.now) for n in ("a", "b")]
            goods = [
                Product(new_id(), f"{currency}-{n}", "x", 7 * n + 3, currency, STOCK, 1, tx.now, tx.now)
                for n in range(2)
                for currency in CURRENCIES
            ]
            logins = [Login(new_id(), user.id, 0, tx.now, Timestamp(tx.now + DAY), None) for user in people]
            for user, login in zip(people, logins, strict=True):
                users.insert(tx, user, "!")
                sessions.insert(tx, login, "", "")
            for product in goods:
                products.insert(tx, product)
        self.callers = [Caller(user, login.id) for user, login in zip(people, logins, strict=True)]
        self.goods = {currency: [p for p in goods if p.currency == currency] for currency in CURRENCIES}
        self.prices = {product.id: product.unit_price for product in goods}

    def close(self) -> None:
        self.database.close()
        self._folder.cleanup()


def done(problem, work):
    """The id of what `work()` created. With a `problem`, `work()` must raise it; the result is None."""
    if problem is None:
        return work().resource.id
    with pytest.raises(problem):
        work()
    return None


class AnyCourseOfEvents(RuleBasedStateMachine):
    """Opens accounts, moves money, places and settles orders, and compares the ledger with its own books."""

    opened, placed = Bundle("opened"), Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.house = Shop()
        self.owner, self.currency = {}, {}
        self.balance, self.stock = Counter(), Counter(dict.fromkeys(self.house.prices, STOCK))
        self.sold = {}  # order → account, total, items; these are None once it is settled

    def teardown(self) -> None:
        self.house.close()

    @initialize(target=opened)
    def first_account(self):
        return self.open(0, "EUR")

    @rule(target=opened, whose=st.integers(0, 1), currency=st.sampled_from(CURRENCIES))
    def open(self, whose, currency):
        account = self.house.ledger.open_account(self.house.callers[whose], currency, ONCE).resource.id
        self.owner[account], self.currency[account] = self.house.callers[whose], currency
        return account

    @rule(account=opened, amount=AMOUNTS)
    def deposit(self, account, amount):
        done(None, lambda: self.house.ledger.deposit(self.owner[account], account, amount, None, ONCE))
        self.balance[account] += amount

    @rule(account=opened, amount=AMOUNTS)
    def withdraw(self, account, amount):
        problem = InsufficientFunds if amount > self.balance[account] else None
        if done(problem, lambda: self.house.ledger.withdraw(self.owner[account], account, amount, None, ONCE)):
            self.balance[account] -= amount

    @rule(source=opened, there=opened, amount=AMOUNTS, caller=st.integers(0, 1))
    def transfer(self, source, there, amount, caller):
        caller = self.house.callers[caller]
        if source == there:  # the route has refused it
            return
        problem = (
            NotFound if self.owner[source] != caller
            else CurrencyMismatch if self.currency[source] != self.currency[there]
            else InsufficientFunds if self.balance[source] < amount
            else None
        )  # fmt: skip
        if done(problem, lambda: self.house.ledger.transfer(caller, source, there, amount, None, ONCE)):
            self.balance.update({source: -amount, there: amount})

    @rule(target=placed, account=opened, quantities=st.tuples(st.integers(1, 4), st.integers(0, 4)))
    def order(self, account, quantities):
        wanted = zip(self.house.goods[self.currency[account]], quantities, strict=True)
        wanted = {product.id: quantity for product, quantity in wanted if quantity}
        total = sum(self.house.prices[product] * quantity for product, quantity in wanted.items())
        problem = (
            OutOfStock if any(self.stock[product] < quantity for product, quantity in wanted.items())
            else InsufficientFunds if self.balance[account] < total
            else None
        )  # fmt: skip
        order = done(problem, lambda: self.house.orders.place(self.owner[account], account, wanted, None, ONCE))
        if order:
            self.balance[account] -= total
            self.stock.subtract(wanted)
            self.sold[order] = account, total, wanted
        return order

    @rule(order=placed, cancel=st.booleans())
    def settle(self, order, cancel):
        if order is None:
            return
        account, total, wanted = self.sold[order]
        settle = self.house.orders.cancel if cancel else self.house.orders.fulfil
        if done(None if wanted else Conflict, lambda: settle(self.owner[account], order, ONCE)):
            self.sold[order] = account, total, None
            if cancel:
                self.balance[account] += total
                self.stock.update(wanted)

    @invariant()
    def the_books_agree(self):
        with self.house.database.snapshot() as tx:
            assert transactions.unbalanced(tx) == []
            assert tx.rows("SELECT * FROM accounts WHERE balance < 0 AND kind <> 'system'") == []
            balances = {account.id: account.balance for account in accounts.by_ids(tx, list(self.owner)).values()}
            stock = {product.id: product.stock for product in products.by_ids(tx, list(self.stock)).values()}
        assert balances == {account: self.balance[account] for account in self.owner}
        assert stock == self.stock
        assert min(stock.values()) >= 0


AnyCourseOfEvents.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestAnyCourseOfEvents = AnyCourseOfEvents.TestCase
