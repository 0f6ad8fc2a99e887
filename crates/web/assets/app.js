// The pages, which of them is shown, and the question once a second that keeps them fresh.

import { absorb, history } from "./charts.js";
import { ask, clock, find, time } from "./elements.js";
import { page as batches } from "./batches.js";
import { page as graph } from "./graph.js";
import { page as overview, showHealth } from "./overview.js";
import { page as sources } from "./sources.js";
import { page as sql } from "./sql.js";
import { page as state } from "./state.js";

const PAGES = { overview, batches, graph, sources, state, sql };
const PAUSE_MS = 1000;

let shown = null;
let last = null;
let lastAt = null;

/** Shows the page that the address names: `#graph/name`. */
function route() {
  const [, name, rest] = /^#([a-z]*)\/?(.*)$/s.exec(location.hash) ?? [null, "", ""];
  const wanted = Object.hasOwn(PAGES, name) ? name : "overview";
  let decoded = rest;
  try {
    decoded = decodeURIComponent(rest);
  } catch {
    // Then it is what it is.
  }
  for (const id of Object.keys(PAGES)) find(`page-${id}`).hidden = id !== wanted;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const title = document.querySelector(`nav a[aria-current]`).textContent;
  document.title = `${title} – Millstream`;
  if (shown !== wanted) window.scrollTo(0, 0);
  shown = wanted;
  PAGES[shown].show?.(decoded);
  if (last) PAGES[shown].update(last);
}

function showState(message, isBad) {
  const state = find("state");
  if (state.textContent !== message) state.textContent = message;
  state.className = isBad ? "bad" : "";
  document.body.classList.toggle("stale", isBad);
}

async function poll(isAgain = false) {
  const answer = await ask(`api/overview?since=${history.next}&after=${history.after}`);
  // Another engine than before is asked for everything, once; the next answer is a second away.
  if (!absorb(answer) && !isAgain) return poll(true);
  [last, lastAt] = [answer, Date.now()];
  const isRunning = answer.state === "running";
  showState(isRunning ? "running" : answer.health[0]?.reason ?? "no engine", !isRunning);
  const up = time((answer.now_ms - answer.began_ms) * 1000);
  const statements = answer.statements === undefined ? "" : `, ${answer.statements} statements running`;
  find("facts").textContent = `version ${answer.version}, up ${up}${statements}`;
  showHealth(answer.health);
  PAGES[shown].update(answer);
}

/** Says since when the page shows nothing new. */
function showStale() {
  const since = lastAt === null ? "" : `: stale since ${clock(lastAt).slice(11, 19)} UTC`;
  showState(`disconnected${since}, trying again`, true);
  const reason = lastAt === null ? "has not answered yet."
    : `has not answered since ${clock(lastAt).slice(0, 19)} UTC. The page shows the figures of that time.`;
  showHealth([{ level: "error", object: "The engine", reason, statement: null }]);
}

async function pollForEver() {
  for (;;) {
    const began = performance.now();
    if (!document.hidden) {
      try {
        await poll();
      } catch {
        showStale();
      }
    }
    const pause = Math.max(50, PAUSE_MS - (performance.now() - began));
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

const redraw = () => PAGES[shown].redraw();
window.addEventListener("hashchange", route);
window.addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
route();
pollForEver();
