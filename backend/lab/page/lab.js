// The entry: which part is shown, and what both parts need.

import { startStorms } from "./storms.js";
import { startXray } from "./xray.js";

// An element with attributes and children; a function as attribute listens to that event.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value != null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
}

// The `data` of the lab's own answer. Throws an Error with the server's message.
export async function ask(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error.message);
  return content.data;
}

export const milliseconds = (number) => `${number < 10 ? number.toFixed(2) : number.toFixed(0)} ms`;

function showPart() {
  const shown = location.hash === "#storms" ? "storms" : "xray";
  for (const part of document.querySelectorAll("main")) part.hidden = part.id !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

addEventListener("hashchange", showPart);
showPart();
startXray();
startStorms();
