"""The walking skeleton: one user through every layer."""


def test_a_user_signs_up_logs_in_and_reads_the_own_profile(api):
    """201 with a Location, then a token pair, then the same user again."""
    made = api.post("/users", json={"email": "Ada@Example.com", "password": "correct horse", "name": " Ada "})
    assert made.status_code == 201
    pair = api.post("/auth/login", json={"email": "ada@example.COM", "password": "correct horse"}).json["data"]
    me = api.get("/users/me", headers={"Authorization": f"bearer {pair['accessToken']}"})
    assert me.json["data"] == made.json["data"]
    assert made.headers["Location"] == f"/api/v1/users/{me.json['data']['id']}"
    assert (me.json["data"]["email"], me.json["data"]["name"]) == ("Ada@Example.com", "Ada")


def test_money_moves_from_one_user_to_another(api, admin, ada, grace):
    """Ada's 1000 become 750, and Grace's 250 are on her statement."""
    source, target = api.account(ada, balance=1000, admin=admin), api.account(grace)
    moved = api.post("/transfers", ada, {"fromAccountId": source, "toAccountId": target, "amount": 250, "memo": "tea"})
    assert moved.status_code == 201, moved.text
    assert (api.balance(source, ada), api.balance(target, grace)) == (750, 250)
    assert api.get(f"/accounts/{target}/transactions", grace).json["data"] == [moved.json["data"]]


def test_an_order_takes_stock_and_money_and_a_cancellation_returns_them(api, admin, ada):
    account, product = api.account(ada, balance=1000, admin=admin), api.product(admin, price=250, stock=10)
    placed = api.post("/orders", ada, {"accountId": account, "items": [{"productId": product, "quantity": 3}]})
    assert placed.status_code == 201, placed.text
    assert placed.json["data"]["total"] == 750
    assert api.balance(account, ada) == 250
    assert api.get(f"/products/{product}").json["data"]["stock"] == 7
    cancelled = api.post(f"/orders/{placed.json['data']['id']}/cancel", ada)
    assert (cancelled.status_code, cancelled.json["data"]["status"]) == (200, "cancelled")
    assert api.balance(account, ada) == 1000
    assert api.get(f"/products/{product}").json["data"]["stock"] == 10
