// What PocketBase's own API does not have: a transfer. And its one connection that writes is made as durable as ours.
onBootstrap((e) => {
  e.next()
  $app.nonconcurrentDB().newQuery("PRAGMA synchronous = FULL").execute() // NORMAL: a power cut loses answered writes
})

routerAdd("POST", "/api/transfers", (e) => {
  const body = new DynamicModel({ fromAccountId: "", toAccountId: "", amount: 0, memo: "" })
  e.bindBody(body)
  if (body.amount < 1) throw new BadRequestError("amount")
  let moved
  $app.runInTransaction((tx) => {
    const source = tx.findRecordById("accounts", body.fromAccountId)
    const target = tx.findRecordById("accounts", body.toAccountId)
    if (source.getString("owner_id") !== e.auth.id) throw new NotFoundError("no such account of yours")
    if (source.getString("currency") !== target.getString("currency")) throw new BadRequestError("another currency")
    if (source.getInt("balance") < body.amount) throw new BadRequestError("not enough money")
    source.set("balance-", body.amount)
    target.set("balance+", body.amount)
    tx.save(source)
    tx.save(target)
    moved = new Record(tx.findCollectionByNameOrId("transactions"), {
      type: "transfer", from_account_id: source.id, to_account_id: target.id, amount: body.amount,
      currency: source.getString("currency"), memo: body.memo,
    })
    tx.save(moved)
    const entries = tx.findCollectionByNameOrId("entries")
    tx.save(new Record(entries, { account_id: source.id, transaction_id: moved.id, amount: -body.amount }))
    tx.save(new Record(entries, { account_id: target.id, transaction_id: moved.id, amount: body.amount }))
  })
  return e.json(201, moved)
}, $apis.requireAuth("users"))
