"""The jobs in FastAPI and SQLAlchemy, written plainly; runs under uvicorn. Endpoints that wait for SQLite are `def`."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar
from uuid import uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import Session, sessionmaker

from tests.bench.peers import shop

T = TypeVar("T")

app = FastAPI()
engine = shop.engine_of(os.environ["PEER_DATABASE"], threads=40)  # as many as FastAPI has
sessions = sessionmaker(engine, expire_on_commit=False)
SECRET = os.environ["PEER_SECRET"]


class Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Meta(Model):
    request_id: str = Field(default_factory=lambda: str(uuid4()))
    timestamp: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Envelope(Model, Generic[T]):
    data: T
    meta: Meta = Field(default_factory=Meta)


class UserOut(Model):
    id: str
    email: str
    name: str
    roles: list[str]
    active: bool
    version: int
    created_at: datetime
    updated_at: datetime

    @field_validator("roles", mode="before")
    @classmethod
    def split(cls, roles: str | list[str]) -> list[str]:
        return roles.split(",") if isinstance(roles, str) else roles


class ProductOut(Model):
    id: str
    sku: str
    name: str
    unit_price: int
    currency: str
    stock: int
    version: int
    created_at: datetime
    updated_at: datetime


class ItemOut(Model):
    product_id: str
    sku: str
    name: str
    quantity: int
    unit_price: int


class OrderOut(Model):
    id: str
    user_id: str
    account_id: str
    status: str
    currency: str
    total: int
    items: list[ItemOut]
    created_at: datetime
    updated_at: datetime


class TransferIn(Model):
    from_account_id: str
    to_account_id: str
    amount: int = Field(ge=1, le=10**12)
    memo: str | None = Field(default=None, max_length=500)


class TransactionOut(Model):
    id: str
    type: str
    from_account_id: str
    to_account_id: str
    amount: int
    currency: str
    memo: str | None
    order_id: str | None
    created_at: datetime


def open_session() -> Iterator[Session]:
    with sessions() as session:
        yield session


OpenSession = Annotated[Session, Depends(open_session)]
Limit = Annotated[int, Query(ge=1, le=100)]


def current_user(
    session: OpenSession, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> shop.User:
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"], audience="shop", issuer="shop")
    except jwt.InvalidTokenError:
        raise HTTPException(401) from None
    user = session.get(shop.User, claims["sub"])
    if user is None or not user.active or user.token_version != claims["ver"]:
        raise HTTPException(401)
    return user


CurrentUser = Annotated[shop.User, Depends(current_user)]


@app.get("/api/v1/users/{user_id}", response_model=Envelope[UserOut])
def show_user(user_id: str, user: CurrentUser) -> object:
    if user.id != user_id:
        raise HTTPException(403)
    return {"data": user}


@app.get("/api/v1/products", response_model=Envelope[list[ProductOut]])
def list_products(session: OpenSession, limit: Limit = 20) -> object:
    return {"data": shop.product_page(session, limit)}


@app.get("/api/v1/orders", response_model=Envelope[list[OrderOut]])
def list_orders(session: OpenSession, user: CurrentUser, limit: Limit = 20) -> object:
    return {"data": shop.orders_of(session, user.id, limit)}


@app.post("/api/v1/transfers", response_model=Envelope[TransactionOut], status_code=201)
def transfer(body: TransferIn, session: OpenSession, user: CurrentUser) -> object:
    try:
        moved = shop.transfer(session, user.id, body.from_account_id, body.to_account_id, body.amount, body.memo)
    except shop.Refused as error:
        raise HTTPException(422, str(error)) from None
    return {"data": moved}
