// The overview: health, an hour of charts, and all objects.

import { addCharts, drawAll } from "./charts.js";
import { bytes, button, clock, find, identifier, make, number, propose, status, table, text } from "./elements.js";

const why = (kind, name) => button("why", () => propose(`EXPLAIN WHY ${kind} ${identifier(name)}`),
  { "aria-label": `Explain why ${name}`, "data-key": `${kind} ${name}` });

const fill = {
  sources: table(find("sources"), [["source", text("name")], ["connector", text("connector")], ["status", status],
    ["reason", text("reason")], ["rows", number("rows")], ["rows/s", number("rows_per_second")],
    ["bad rows", number("bad_rows")], ["waiting rows", number("waiting_rows")],
    ["waiting bytes", number("waiting_bytes", bytes)], ["restarts", number("restarts")]]),
  queries: table(find("queries"), [["name", text("name")], ["kind", text("kind")], ["status", status],
    ["reason", text("reason")], ["rows", number("rows")], ["state", number("state_bytes", bytes)],
    ["errors", number("errors")], ["", (row) => why(row.kind.toUpperCase(), row.name)]]),
  sinks: table(find("sinks"), [["sink", text("name")], ["target", text("target")], ["status", status],
    ["reason", text("reason")], ["rows", number("rows")], ["waiting epochs", number("waiting_epochs")],
    ["waiting bytes", number("waiting_bytes", bytes)], ["delivery", text("delivery")],
    ["", (row) => why("SINK", row.name)]]),
};

let shown;

function item({ level, object, reason, statement, since }) {
  const title = since ? `since ${clock(since)}` : null;
  const element = make("li", { class: level, title }, make("b", {}, level), make("span", {}, object, " ", reason));
  if (statement) {
    element.append(make("code", {}, statement), button("use", () => propose(statement), { "data-key": statement }));
  }
  return element;
}

/** Shows problems. An engine without any keeps up. */
export function showHealth(problems) {
  const key = JSON.stringify(problems);
  if (shown === key) return;
  shown = key;
  const list = find("health");
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const good = { level: "good", object: "It keeps up;", reason: "nothing has failed." };
  list.replaceChildren(...(problems.length ? problems : [good]).map(item));
  const summary = problems.length ? `${problems.length} problems, the worst: ${problems[0].level}` : "It keeps up";
  if (find("health-summary").textContent !== summary) find("health-summary").textContent = summary;
  if (focused !== undefined) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

addCharts();
find("span").addEventListener("change", drawAll);

export const page = {
  update(overview) {
    showHealth(overview.health);
    if (overview.state === "running") for (const id of ["sources", "queries", "sinks"]) fill[id](overview[id]);
    drawAll();
  },
  redraw: drawAll,
};
