// One request from inside: the form, the layers, the spans, and the code of the chosen span.

import { ask, element, milliseconds } from "./lab.js";

// `{name}` stands for the id of a product or an account.
const EXAMPLES = [
  { title: "Read a product; again: a hit", path: "/api/v1/products/{tea}" },
  { title: "Read a product that does not exist", path: "/api/v1/products/0198c0de-0000-7000-8000-000000000000" },
  {
    title: "Transfer 5.00 under a key; again: a replay", as: "Ada", method: "POST", path: "/api/v1/transfers",
    headers: "Idempotency-Key: lunch-{random}",
    body: { fromAccountId: "{adaAccount}", toAccountId: "{graceAccount}", amount: 500, memo: "lunch" },
  },
  {
    title: "Transfer more than there is: a rollback", as: "Ada", method: "POST", path: "/api/v1/transfers",
    body: { fromAccountId: "{adaAccount}", toAccountId: "{graceAccount}", amount: 99999999 },
  },
  {
    title: "Order tea: stock and payment in one transaction", as: "Ada", method: "POST", path: "/api/v1/orders",
    body: { accountId: "{adaAccount}", items: [{ productId: "{tea}", quantity: 1 }] },
  },
  {
    title: "Change a product: invalidated after the commit", as: "Root", method: "PATCH", path: "/api/v1/products/{tea}",
    body: { stock: 90 },
  },
  { title: "Users with their orders, without N+1", as: "Root", path: "/api/v1/users?include=orders" },
  {
    title: "Log in: bcrypt outside the transaction", method: "POST", path: "/api/v1/auth/login",
    body: { email: "ada@example.com", password: "a quiet harbour" },
  },
  {
    title: "A body with several mistakes", as: "Root", method: "POST", path: "/api/v1/products",
    body: { sku: "", unitPrice: 2.5, colour: "green" },
  },
  { title: "Another user's account", as: "Grace", path: "/api/v1/accounts/{adaAccount}" },
  { title: "A token that is none", path: "/api/v1/users/me", headers: "Authorization: Bearer nonsense" },
];

const byId = (id) => document.getElementById(id);
let tokens = {};
let ids = {};

export async function startXray() {
  const form = byId("request");
  byId("example").append(...EXAMPLES.map((example, number) => element("option", { value: number }, example.title)));
  byId("example").addEventListener("change", fillForm);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  byId("spans").addEventListener("keydown", moveFocus);
  await renewTokens();
  byId("as").append(...Object.keys(tokens).map((name) => element("option", {}, name)));
  fillForm();
}

async function renewTokens() {
  ({ tokens, ids } = await ask("/lab/users"));
}

function fillForm() {
  const example = EXAMPLES[byId("example").value];
  const random = Math.random().toString(36).slice(2, 8);
  const filled = (text) => text.replace(/\{(\w+)\}/g, (whole, name) => ({ ...ids, random })[name] ?? whole);
  byId("as").value = example.as ?? "";
  byId("method").value = example.method ?? "GET";
  byId("path").value = filled(example.path);
  byId("headers").value = filled(example.headers ?? "");
  byId("body").value = example.body ? filled(JSON.stringify(example.body, null, 1)) : "";
}

async function send() {
  byId("send").disabled = true;
  try {
    let answer = await request();
    if (answer.status === 401 && byId("as").value) {
      await renewTokens(); // it may have expired
      answer = await request();
    }
    const report = await ask(`/lab/trace?request=${answer.headers.get("X-Request-ID")}`);
    show(answer, await answer.text(), report);
  } catch (error) {
    byId("result").hidden = false;
    byId("summary").textContent = `No trace: ${error.message}`;
  } finally {
    byId("send").disabled = false;
  }
}

function request() {
  const body = byId("body").value.trim();
  const headers = new Headers();
  if (byId("as").value) headers.set("Authorization", `Bearer ${tokens[byId("as").value]}`);
  if (body) headers.set("Content-Type", "application/json");
  for (const line of byId("headers").value.split("\n").filter((line) => line.trim())) {
    const [name, ...value] = line.split(":");
    headers.set(name.trim(), value.join(":").trim());
  }
  return fetch(byId("path").value, { method: byId("method").value, headers, body: body || undefined, cache: "no-store" });
}

function show(answer, text, report) {
  const statements = report.spans.filter((span) => span.layer === "sql").length;
  const whole = report.spans[0].ms;
  byId("result").hidden = false;
  const count = `${statements} statement${statements === 1 ? "" : "s"}`;
  byId("summary").textContent = `${answer.status} ${answer.statusText} · ${milliseconds(whole)} · ${count}`;
  byId("summary").className = answer.ok ? "good" : "bad";
  const headers = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
  byId("answer").textContent = `${headers}\n\n${pretty(text)}`;
  byId("layers").replaceChildren(...Object.entries(report.layers).map((entry) => layer(...entry, whole, report)));
  byId("spans").replaceChildren(...report.spans.map((span) => row(span, whole, report)));
  const routes = report.spans.filter((span) => span.layer === "route");
  const first = routes.reduce((one, other) => (other.ms > one.ms ? other : one), routes[0] ?? report.spans[0]);
  choose(byId("spans").children[report.spans.indexOf(first)].firstChild, first, report);
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

// A stratum: a button that marks the spans of its layer.
function layer(name, ms, whole, report) {
  const outcomes = report.spans.filter((span) => span.layer === name && span.detail.outcome).map((span) => span.detail.outcome);
  const bar = element("span", { class: `bar ${classOf(name)}` });
  bar.style.setProperty("--width", Math.max(0, ms) / whole);
  const mark = (event) => {
    const pressed = event.currentTarget.getAttribute("aria-pressed") !== "true";
    for (const button of document.querySelectorAll("#layers button")) button.setAttribute("aria-pressed", "false");
    event.currentTarget.setAttribute("aria-pressed", pressed);
    for (const span of byId("spans").children) span.classList.toggle("dim", pressed && span.dataset.layer !== name);
  };
  return element(
    "li", {},
    element(
      "button", { type: "button", "aria-pressed": "false", click: mark },
      element("span", { class: "name" }, name),
      element("span", { class: "outcome" }, outcomes.join(", ")),
      element("span", { class: "ms" }, milliseconds(ms)),
      element("span", { class: "track" }, bar),
    ),
  );
}

function row(span, whole, report) {
  const bar = element("span", { class: `bar ${classOf(span.layer)}` });
  bar.style.setProperty("--start", span.start / whole);
  bar.style.setProperty("--width", span.ms / whole);
  const name = element("span", { class: "name" }, span.name);
  name.style.setProperty("--depth", span.depth);
  const outcome = [span.detail.outcome, span.failed && "✗ raised an error"].filter(Boolean).join(" ");
  const button = element(
    "button", { type: "button", click: (event) => choose(event.currentTarget, span, report) },
    element("span", { class: `chip ${classOf(span.layer)}` }, span.layer),
    name,
    element("span", { class: "outcome" }, outcome),
    element("span", { class: "ms" }, milliseconds(span.ms)),
    element("span", { class: "track" }, bar),
  );
  return element("li", { "data-layer": span.layer }, button);
}

const classOf = (layer) => `layer-${layer.replace(" ", "-")}`;

function moveFocus(event) {
  const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
  const next = step && event.target.closest("li")?.[step];
  if (next) {
    event.preventDefault();
    next.firstChild.focus();
    next.firstChild.click();
  }
}

function choose(button, span, report) {
  for (const other of document.querySelectorAll("#spans [aria-current]")) other.removeAttribute("aria-current");
  button.setAttribute("aria-current", "true");
  const { sql, plan, parameters, ...rest } = span.detail;
  const around = caller(span, report.spans); // a statement has no code of its own
  const parts = [
    element("h3", {}, span.layer === "sql" ? "Statement" : span.name),
    element("p", {}, `${span.layer} · ${milliseconds(span.ms)}, from ${milliseconds(span.start)}`),
    facts(rest),
    sql && code("SQL", sql.replace(/^\s+/gm, "")),
    parameters && facts(parameters),
    plan?.length && code("Plan", plan.join("\n")),
    around && listing(around.place, report.sources[around.place]),
  ];
  byId("detail").replaceChildren(...parts.filter(Boolean));
}

// The span itself if it has code, else the innermost one around it that has.
function caller(span, spans) {
  let depth = span.depth + 1;
  for (let number = spans.indexOf(span); number >= 0; number--) {
    if (spans[number].depth < depth && spans[number].place) return spans[number];
    depth = Math.min(depth, spans[number].depth);
  }
  return null;
}

function facts(values) {
  const rows = Object.entries(values).flatMap(([name, value]) => [
    element("dt", {}, name),
    element("dd", {}, Array.isArray(value) ? value.join(", ") : String(value)),
  ]);
  return rows.length ? element("dl", {}, ...rows) : null;
}

const code = (title, text) => element("figure", {}, element("figcaption", {}, title), element("pre", { tabindex: 0, "aria-label": title }, text));

function listing(place, text) {
  const [file, first] = place.split(":");
  const lines = text.trimEnd().split("\n").map((line, number) => `${String(Number(first) + number).padStart(4)}  ${line}`);
  return code(`${file}, line ${first}`, lines.join("\n"));
}
