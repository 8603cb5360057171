// Storms: run them on the server, then draw each request as a bar, and say whether the promise held.

import { ask, element, milliseconds } from "./lab.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000; // of the drawing's own units

export async function startStorms() {
  const storms = await ask("/lab/storms");
  const cards = Object.entries(storms).map(([name, storm]) => card(name, storm));
  document.getElementById("storm-list").append(...cards);
  document.getElementById("run-all").addEventListener("click", async (event) => {
    event.target.disabled = true;
    for (const each of cards) if (!each.runner.disabled) await each.run();
    event.target.disabled = false;
  });
  const offer = () => {
    for (const each of cards) each.runner.disabled = !storms[each.id.slice(6)].targets.includes(target());
  };
  document.getElementById("targets").addEventListener("change", offer);
}

const target = () => document.querySelector("[name=target]:checked").value;

// An article with the button that runs it, as `runner` and `run`.
function card(name, storm) {
  const result = element("div", { class: "outcome", role: "status" });
  const runner = element("button", { type: "button", "aria-label": `Run: ${storm.title}`, click: () => made.run() }, "Run");
  const made = element(
    "article", { id: `storm-${name}` },
    element("h3", {}, storm.title), element("p", {}, `Promise: ${storm.promise}`), runner, result,
  );
  made.runner = runner;
  made.run = async () => {
    runner.disabled = true;
    result.replaceChildren(element("p", {}, target() === "lab" ? "Running…" : "Running… The first storm starts the server."));
    try {
      result.replaceChildren(...outcome(await ask("/lab/storms", { storm: name, target: target() }), target()));
    } catch (error) {
      result.replaceChildren(element("p", { class: "bad" }, error.message));
    } finally {
      runner.disabled = !storm.targets.includes(target());
    }
  };
  return made;
}

function outcome(storm, against) {
  const word = storm.holds ? "holds" : "broken";
  return [
    element("p", { class: `verdict ${storm.holds ? "good" : "bad"}` }, `${storm.holds ? "✓" : "✗"} ${word} · ${against}`),
    element("p", { class: "figures" }, storm.figures),
    drawing(storm.requests),
    table(storm.requests),
  ];
}

// Each request is a bar from its beginning to its end; the requests of a worker stand together.
function drawing(requests) {
  const sorted = requests.toSorted((one, other) => one.worker.localeCompare(other.worker) || one.start - other.start);
  const end = Math.max(...requests.map((each) => each.start + each.ms));
  const height = Math.min(8, 320 / requests.length);
  const picture = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${height * requests.length}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${requests.length} requests in ${milliseconds(end)}, grouped by worker`,
    height: Math.ceil(height * requests.length),
  });
  sorted.forEach((each, number) => {
    const bar = shape("rect", {
      class: classOf(each), x: (each.start / end) * WIDTH, y: number * height,
      width: Math.max(2, (each.ms / end) * WIDTH), height: height * 0.8,
    });
    bar.append(shape("title", {}, `${each.label}: ${each.status}, ${milliseconds(each.ms)}`));
    picture.append(bar);
  });
  return picture;
}

function shape(tag, attributes, text = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

// The server's note, such as `replayed`, else the kind of the status.
const classOf = ({ status, note }) => note || (status === 0 ? "lost" : `status-${Math.floor(status / 100)}`);

// The same as the drawing, in numbers: how many requests of each kind had which answer from which worker.
function table(requests) {
  const counts = new Map();
  const workers = [...new Set(requests.map((each) => each.worker))].sort();
  for (const each of requests) {
    const answer = each.status === 0 ? "no answer" : [each.status, each.note].filter(Boolean).join(", ");
    const label = each.label.replace(/[0-9a-f]{8}-[0-9a-f-]{27}/, "{id}");
    const worker = each.worker ? `worker ${workers.indexOf(each.worker) + 1}` : "the lab";
    const key = JSON.stringify([label, answer, classOf(each), worker]);
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const rows = [...counts].sort().map(([key, count]) => {
    const [label, answer, kind, worker] = JSON.parse(key);
    const swatch = element("span", { class: `swatch ${kind}` });
    const others = [label, worker, count].map((text) => element("td", {}, String(text)));
    return element("tr", {}, element("td", {}, swatch, ` ${answer}`), ...others);
  });
  const head = ["Answer", "Request", "Process", "Count"].map((text) => element("th", { scope: "col" }, text));
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}
