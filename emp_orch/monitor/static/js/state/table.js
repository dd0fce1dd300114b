// Things by id. What did not change keeps its identity, and so does the list of all while nothing in it changed.
import { same } from "./same.js";

export class Table {
  constructor(keyOf, order) {
    this.keyOf = keyOf;
    this.order = order;
    this.byKey = new Map();
    this.all = [];
  }

  get list() {
    if (this.all === null) this.all = [...this.byKey.values()].sort(this.order);
    return this.all;
  }

  get(key) {
    return this.byKey.get(key);
  }

  // Makes it hold exactly `items`. Returns what is new or other (`put`) and what went (`gone`).
  replace(items) {
    const before = this.byKey;
    const wanted = new Set(items.map(this.keyOf));
    const gone = [...before.keys()].filter((key) => !wanted.has(key));
    return this.apply(new Map(items.map((item) => [this.keyOf(item), item])), gone);
  }

  apply(items, gone) {
    const put = [];
    const left = [];
    for (const [key, item] of items) {
      if (same(this.byKey.get(key), item)) continue;
      this.byKey.set(key, item);
      put.push(item);
    }
    for (const key of gone) {
      if (!this.byKey.has(key)) continue;
      left.push(this.byKey.get(key));
      this.byKey.delete(key);
    }
    if (put.length || left.length) this.all = null;
    return { put, gone: left };
  }
}

export const byText = (keyOf) => (a, b) => (keyOf(a) < keyOf(b) ? -1 : keyOf(a) > keyOf(b) ? 1 : 0);
