"""The jobs in Flask and SQLAlchemy, written plainly; runs under gunicorn's gthread."""

import os
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import jwt
from flask import Flask, Response, abort, g, jsonify, request
from sqlalchemy.orm import Session, sessionmaker
from werkzeug.exceptions import HTTPException

from tests.bench.peers import shop

app = Flask(__name__)
sessions = sessionmaker(shop.engine_of(os.environ["PEER_DATABASE"], threads=8), expire_on_commit=False)
SECRET = os.environ["PEER_SECRET"]


def session() -> Session:
    """The request's session, opened when first needed."""
    found: Session = g.setdefault("session", None) or sessions()
    g.session = found
    return found


@app.teardown_request
def close_session(_: BaseException | None) -> None:
    if "session" in g:
        g.session.close()


def current_user() -> shop.User:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer":
        abort(401)
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], audience="shop", issuer="shop")
    except jwt.InvalidTokenError:
        abort(401)
    user = session().get(shop.User, claims["sub"])
    if user is None or not user.active or user.token_version != claims["ver"]:
        abort(401)
    return user


@app.get("/api/v1/users/<user_id>")
def show_user(user_id: str) -> Response:
    user = current_user()
    if user.id != user_id:
        abort(403)
    return envelope({
        "id": user.id, "email": user.email, "name": user.name, "roles": user.roles.split(","),
        "active": user.active, "version": user.version, **times(user),
    })  # fmt: skip


@app.get("/api/v1/products")
def list_products() -> Response:
    return envelope([
        {"id": product.id, "sku": product.sku, "name": product.name, "unitPrice": product.unit_price,
         "currency": product.currency, "stock": product.stock, "version": product.version, **times(product)}
        for product in shop.product_page(session(), limit())
    ])  # fmt: skip


@app.get("/api/v1/orders")
def list_orders() -> Response:
    return envelope([
        {"id": order.id, "userId": order.user_id, "accountId": order.account_id, "status": order.status,
         "currency": order.currency, "total": order.total, "items": [item_body(item) for item in order.items],
         **times(order)}
        for order in shop.orders_of(session(), current_user().id, limit())
    ])  # fmt: skip


@app.post("/api/v1/transfers")
def transfer() -> tuple[Response, int]:
    user, body = current_user(), request.get_json()
    source, target, amount, memo = (body.get(n) for n in ("fromAccountId", "toAccountId", "amount", "memo"))
    if not (isinstance(source, str) and isinstance(target, str) and isinstance(amount, int) and amount > 0):
        abort(422)
    try:
        moved = shop.transfer(session(), user.id, source, target, amount, memo)
    except shop.Refused as error:
        abort(422, str(error))
    return envelope({
        "id": moved.id, "type": moved.type, "fromAccountId": moved.from_account_id,
        "toAccountId": moved.to_account_id, "amount": moved.amount, "currency": moved.currency, "memo": moved.memo,
        "orderId": moved.order_id, "createdAt": text(moved.created_at),
    }), 201  # fmt: skip


@app.errorhandler(HTTPException)
def refuse(error: HTTPException) -> tuple[Response, int]:
    return jsonify(error={"code": error.name, "message": error.description}, meta=meta()), error.code or 500


def limit() -> int:
    return min(100, max(1, request.args.get("limit", 20, type=int)))


def item_body(item: shop.OrderItem) -> dict[str, Any]:
    return {"productId": item.product_id, "sku": item.sku, "name": item.name, "quantity": item.quantity,
            "unitPrice": item.unit_price}  # fmt: skip


def times(row: Any) -> dict[str, str]:
    return {"createdAt": text(row.created_at), "updatedAt": text(row.updated_at)}


def text(time: datetime) -> str:
    return f"{time.isoformat(timespec='milliseconds')}Z"


def envelope(data: object) -> Response:
    return jsonify(data=data, meta=meta())


def meta() -> dict[str, str]:
    return {"requestId": str(uuid4()), "timestamp": text(datetime.now(UTC).replace(tzinfo=None))}
