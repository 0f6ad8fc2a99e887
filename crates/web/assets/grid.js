// The rows of a result in a table that has elements only for the rows in sight.

import { isNumberType, make, oncePerFrame } from "./elements.js";

const ROW_HEIGHT = 26;
const OVERSCAN = 10;
const SAMPLED = 100;
const FLASH_MS = 1500;

/** Browsers limit the height of an element; the scroll bar of longer results moves by more than a row a row. */
const HEIGHT_MAX = 8_000_000;

/** Returns the value as one line. */
const oneLine = (value) => (value.length > 500 ? value.slice(0, 500) + "…" : value).replace(/\s/g, " ");

export class Grid {
  /** Draws in the next frame. */
  redraw = oncePerFrame(() => this.draw());

  /** `types` are those of the columns. A grid that follows stays at its end when rows are added there. */
  constructor(columns, types, follows = false) {
    Object.assign(this, { columns, types, follows, rows: [], paged: null, flashes: new Map(), top: 0, expected: 0 });
    this.isNumber = types.map(isNumberType);
    this.columnElements = columns.map(() => make("col"));
    this.widths = columns.map(() => 0);
    const head = make("tr", { "aria-rowindex": "1" }, ...columns.map((name, at) =>
      make("th", { scope: "col", title: types[at], class: this.isNumber[at] ? "number" : null }, name)));
    this.above = make("tr", { "aria-hidden": "true" });
    this.below = make("tr", { "aria-hidden": "true" });
    this.body = make("tbody");
    this.table = make("table", { class: "grid" }, make("colgroup", {}, ...this.columnElements), make("thead", {}, head), this.body);
    this.scroll = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Rows" }, this.table);
    this.value = make("pre", { class: "value", hidden: "" });
    this.element = make("div", {}, this.scroll, this.value);
    this.scroll.addEventListener("scroll", () => this.scrolled());
    this.scroll.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.scroll.addEventListener("keydown", (event) => this.key(event));
    this.body.addEventListener("click", (event) => this.showValue(event));
    new ResizeObserver(() => this.redraw()).observe(this.scroll);
  }

  /** Shows these rows: arrays of texts and nulls. `changed` has the places of cells that flash, by row. */
  set(rows, changed = new Map()) {
    const { scrollTop, clientHeight, scrollHeight } = this.scroll;
    this.isAtEnd = this.follows && scrollTop + clientHeight >= scrollHeight - ROW_HEIGHT;
    this.rows = rows;
    const until = performance.now() + FLASH_MS;
    for (const [row, places] of changed) this.flashes.set(row, { places, until });
    this.size();
    this.table.setAttribute("aria-rowcount", rows.length + 1);
    this.redraw();
  }

  /** Shows rows of which only some are here: see pages.js. */
  setPaged(paged) {
    this.paged = paged;
    this.top = Math.min(this.top, paged.length * ROW_HEIGHT);
    this.size();
    this.table.setAttribute("aria-rowcount", paged.length + 1);
    this.redraw();
  }

  get length() {
    return this.paged ? this.paged.length : this.rows.length;
  }

  row(at) {
    return this.paged ? this.paged.get(at) : this.rows[at];
  }

  /** Returns by how much the rows move while the scroll bar moves by one pixel. */
  ratio() {
    const [all, client] = [this.length * ROW_HEIGHT, this.scroll.clientHeight || 420];
    return all > HEIGHT_MAX ? (all - client) / (HEIGHT_MAX - client) : 1;
  }

  scrolled() {
    const { scrollTop } = this.scroll;
    // The scroll bar of a very long result is too coarse for steps of a row.
    if (Math.abs(scrollTop - this.expected) > 1) this.top = Math.min(this.topMost(), scrollTop * this.ratio());
    this.expected = scrollTop;
    this.redraw();
  }

  /** Returns where the last row is at the end of the visible part, below the head. */
  topMost() {
    return Math.max(0, (this.length + 2) * ROW_HEIGHT - this.scroll.clientHeight);
  }

  moveBy(pixels) {
    this.top = Math.max(0, Math.min(this.topMost(), this.top + pixels));
    this.scroll.scrollTop = this.top / this.ratio();
    this.expected = this.scroll.scrollTop;
    this.redraw();
  }

  wheel(event) {
    if (this.ratio() === 1 || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    this.moveBy(event.deltaMode === 1 ? event.deltaY * ROW_HEIGHT : event.deltaY);
  }

  key(event) {
    const page = this.scroll.clientHeight - 2 * ROW_HEIGHT;
    const by = { ArrowDown: ROW_HEIGHT, ArrowUp: -ROW_HEIGHT, PageDown: page, PageUp: -page }[event.key];
    if (by === undefined || this.ratio() === 1 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.moveBy(by);
  }

  /** Widens the columns for the first and the last rows. */
  size() {
    const here = this.paged ? this.paged.newest : this.rows;
    const sample = [...here.slice(0, SAMPLED), ...here.slice(-SAMPLED)];
    let all = 0;
    this.columns.forEach((name, at) => {
      const longest = Math.max(name.length + 1, ...sample.map((row) => row[at]?.length ?? 4));
      const width = Math.max(this.widths[at], Math.min(Math.max(longest, 5), 48) * 8.6 + 22);
      if (width > this.widths[at]) this.columnElements[at].style.width = `${width}px`;
      this.widths[at] = width;
      all += width;
    });
    this.table.style.width = `${all}px`;
  }

  draw() {
    if (this.isAtEnd) {
      // The end moves: the rows there are drawn at once.
      this.below.style.height = "0px";
      this.above.style.height = `${this.rows.length * ROW_HEIGHT}px`;
      this.body.replaceChildren(this.above, this.below);
      this.scroll.scrollTop = this.scroll.scrollHeight;
      this.isAtEnd = false;
    }
    const { scrollTop, clientHeight } = this.scroll;
    const all = this.length;
    // Where the scroll bar is coarse, the rows in sight lie around its place.
    const isCoarse = this.ratio() > 1;
    const top = isCoarse ? this.top : scrollTop;
    const first = Math.max(0, Math.min(Math.floor(top / ROW_HEIGHT) - OVERSCAN, all));
    const last = Math.min(all, Math.ceil((top + (clientHeight || 420)) / ROW_HEIGHT) + OVERSCAN);
    const above = isCoarse ? Math.max(0, scrollTop - (top - first * ROW_HEIGHT)) : first * ROW_HEIGHT;
    const below = isCoarse ? HEIGHT_MAX - above - (last - first) * ROW_HEIGHT : (all - last) * ROW_HEIGHT;
    const now = performance.now();
    for (const [row, { until }] of this.flashes) if (until < now) this.flashes.delete(row);
    this.above.style.height = `${above}px`;
    this.below.style.height = `${Math.max(0, below)}px`;
    const shown = [];
    for (let at = first; at < last; at += 1) shown.push(this.rowElement(at));
    this.first = first;
    this.body.replaceChildren(this.above, ...shown, this.below);
    if (this.flashes.size) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.redraw(), FLASH_MS + 50);
    }
  }

  rowElement(at) {
    const row = this.row(at);
    if (!row) return make("tr", { "aria-rowindex": at + 2 }, make("td", { colspan: this.columns.length, class: "null" }, "…"));
    const flash = this.flashes.get(row);
    const cell = (value, column) => {
      const names = [];
      if (this.isNumber[column]) names.push("number");
      if (flash && (flash.places === null || flash.places.includes(column))) names.push("flash");
      if (value === null) names.push("null");
      return make("td", { class: names.length ? names.join(" ") : null }, value === null ? "NULL" : oneLine(value));
    };
    return make("tr", { "aria-rowindex": at + 2 }, ...row.map(cell));
  }

  /** Shows the whole value of a cell below the rows. */
  showValue(event) {
    const cell = event.target.closest("td");
    if (!cell) return;
    const row = this.row(this.first + cell.parentElement.rowIndex - 2);
    if (!row) return;
    const value = row[cell.cellIndex];
    this.value.hidden = false;
    this.value.textContent = `${this.columns[cell.cellIndex]}: ${value === null ? "NULL" : value.slice(0, 1 << 20)}`;
  }
}

/** Returns rows as CSV. A text is in quotes where that is needed, and an empty one always: nothing is NULL. */
export function csv(columns, rows) {
  const field = (value) => {
    if (value === null) return "";
    return value === "" || /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  };
  return [columns, ...rows].map((row) => row.map(field).join(",") + "\r\n").join("");
}

/** The rows of a live query: its changes are applied in place. */
export class LiveRows {
  /** `skipped` columns come before the row itself: the epoch, the operation. */
  constructor(skipped, operation, max) {
    Object.assign(this, { skipped, operation, max, slots: [], places: new Map(), holes: 0, head: 0, isCut: false });
  }

  /** Applies changes. Returns the rows and the cells that changed, by row. */
  apply(changes) {
    const changed = new Map();
    const free = [];
    for (const change of changes) {
      const row = change.slice(this.skipped);
      const op = this.operation === null ? "insert" : change[this.operation];
      const key = JSON.stringify(row);
      if (op === "insert" || op === "update_insert") this.insert(row, key, free, changed);
      else if (op === "delete" || op === "update_delete") this.remove(key, free);
    }
    if (this.holes > 64 && this.holes * 4 > this.slots.length) this.compact();
    return { rows: this.slots.filter((row) => row !== null), changed };
  }

  insert(row, key, free, changed) {
    if (this.slots.length - this.holes >= this.max) {
      // Rows that are only added leave at the other end.
      if (this.operation !== null) {
        this.isCut = true;
        return;
      }
      this.dropFirst();
    }
    // A row that replaces one with the same first value takes its place.
    const at = free.findIndex(({ row: old }) => old[0] === row[0]);
    let slot = this.slots.length;
    if (at >= 0) {
      const [{ place, row: old }] = free.splice(at, 1);
      slot = place;
      this.holes -= 1;
      changed.set(row, row.flatMap((value, column) => (value === old[column] ? [] : [column])));
    } else {
      changed.set(row, null);
    }
    this.slots[slot] = row;
    (this.places.get(key) ?? this.places.set(key, []).get(key)).push(slot);
  }

  remove(key, free) {
    const places = this.places.get(key);
    if (!places) return;
    const place = places.pop();
    if (!places.length) this.places.delete(key);
    free.push({ place, row: this.slots[place] });
    this.slots[place] = null;
    this.holes += 1;
  }

  dropFirst() {
    while (this.slots[this.head] === null) this.head += 1;
    const place = this.head;
    const key = JSON.stringify(this.slots[place]);
    const places = this.places.get(key);
    places.splice(places.indexOf(place), 1);
    if (!places.length) this.places.delete(key);
    this.slots[place] = null;
    this.holes += 1;
  }

  compact() {
    this.slots = this.slots.filter((row) => row !== null);
    this.holes = 0;
    this.head = 0;
    this.places.clear();
    this.slots.forEach((row, at) => {
      const key = JSON.stringify(row);
      (this.places.get(key) ?? this.places.set(key, []).get(key)).push(at);
    });
  }
}
