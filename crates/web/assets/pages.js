// The rows of a result that the server keeps. The page has only those around the rows in sight.

import { post } from "./elements.js";

const PAGE = 250;
const PAGES_MAX = 24;

export class PagedRows {
  /** `first` are the rows that the page has received; `onLoad` is called when others have arrived. */
  constructor(onLoad) {
    Object.assign(this, { first: [], newest: [], length: 0, result: null, pages: new Map(), loading: new Map(), onLoad, onFailure: () => {} });
  }

  add(rows) {
    for (const row of rows) this.first.push(row);
    this.newest = rows;
    this.length = Math.max(this.length, this.first.length);
  }

  /** Returns a row, or null for one that has not arrived; it is read then. */
  get(at) {
    if (at < this.first.length) return this.first[at];
    const number = Math.floor(at / PAGE);
    const page = this.pages.get(number);
    if (!page) {
      this.load(number);
      return null;
    }
    // The pages that were used last are at the end.
    this.pages.delete(number);
    this.pages.set(number, page);
    return page[at - number * PAGE] ?? null;
  }

  load(number) {
    if (this.result === null || this.loading.has(number) || this.failed) return;
    // Pages that were scrolled over are of no use any more.
    for (const [other, pending] of this.loading) if (Math.abs(other - number) > 4) pending.abort();
    const pending = new AbortController();
    this.loading.set(number, pending);
    this.range(number * PAGE, PAGE, pending.signal).then((rows) => {
      this.pages.set(number, rows);
      this.newest = rows;
      while (this.pages.size > PAGES_MAX) this.pages.delete(this.pages.keys().next().value);
      this.loading.delete(number);
      this.onLoad();
    }, (failure) => {
      this.loading.delete(number);
      if (failure.name === "AbortError") return;
      this.failed = true;
      this.onFailure(failure.message);
    });
  }

  /** Returns the rows from one on, at most 1,000. */
  async range(from, wanted, signal) {
    const rows = this.first.slice(from, from + wanted);
    if (rows.length === wanted || this.result === null || from + rows.length >= this.length) return rows;
    const body = { result: this.result, from: from + rows.length, count: wanted - rows.length };
    return rows.concat((await (await post("api/result/rows", body, signal)).json()).rows);
  }

  /** The server may forget the rows. */
  drop() {
    if (this.result === null) return;
    const body = JSON.stringify({ result: this.result });
    this.result = null;
    const headers = { "Content-Type": "application/json" };
    fetch("api/result/drop", { method: "POST", headers, body, keepalive: true }).catch(() => {});
  }
}
