// The event stream: connects, watches for silence, and connects again by itself. After every gap the API sends a whole
// snapshot, so nothing has to be reloaded.
import { call } from "./api.js";
import { read } from "./sse.js";
import { LIVE, NEEDS_TOKEN, RECONNECTING, STALE } from "../state/store.js";
import { serverNow, setServerTime } from "../state/time.js";
import { authorization, TOKEN } from "./token.js";

const SILENT_MS = 4_500;
const DEAD_MS = 9_000;
const RETRY_FIRST_MS = 400;
const RETRY_MAX_MS = 3_000;
const RECENT = "/api/events?limit=1000";
const PAST = "/api/journal?type=drift_opened,drift_closed&since=1h&limit=1000";

export class Stream {
  constructor(store) {
    this.store = store;
    this.retryMs = RETRY_FIRST_MS;
    this.heard = Date.now();
    this.lastId = "";
    this.token = sessionStorage.getItem(TOKEN) ?? "";
    this.attempt = new AbortController();
    this.wake = () => {};
  }

  start() {
    setInterval(() => this.#watch(), 500);
    this.#run();
  }

  useToken(token) {
    this.token = token;
    sessionStorage.setItem(TOKEN, token);
    this.wake();
  }

  async #run() {
    for (;;) {
      const status = await this.#once();
      if (status === 401) {
        this.store.setConnection(NEEDS_TOKEN, this.token ? "The token was not accepted." : "");
        await new Promise((resolve) => (this.wake = resolve));
        continue;
      }
      if (this.store.connection.phase !== STALE) this.store.setConnection(RECONNECTING);
      await new Promise((resolve) => setTimeout(resolve, this.retryMs));
      this.retryMs = Math.min(Math.max(this.retryMs, RETRY_FIRST_MS) * 2, RETRY_MAX_MS);
    }
  }

  // One connection, until it ends for whatever reason. Returns the status, or 0 when nobody answered.
  async #once() {
    this.attempt = new AbortController();
    const headers = { Accept: "text/event-stream", ...authorization() };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    try {
      const response = await fetch("/api/events/monitor?live=1", {
        headers,
        cache: "no-store",
        signal: this.attempt.signal,
      });
      if (!response.ok) return response.status;
      this.heard = Date.now();
      await read(response.body, (event) => this.#receive(event), () => (this.heard = Date.now()));
      return response.status;
    } catch {
      return 0; // refused, cut, or given up by #watch: each is tried again
    }
  }

  #receive({ type, id, data: text }) {
    const data = JSON.parse(text);
    if (id) this.lastId = id;
    switch (type) {
      case "connected":
        setServerTime(data.timestamp);
        this.retryMs = RETRY_FIRST_MS;
        return;
      case "full_state_snapshot":
        this.store.setState(data, Date.parse(data.timestamp));
        this.store.setConnection(LIVE);
        this.#fetchPast();
        return;
      case "delta":
        if (!this.store.applyDelta(data, Date.parse(data.timestamp))) return this.#resync();
        this.store.setConnection(LIVE);
        return;
      case "heartbeat":
        setServerTime(data.timestamp);
        this.store.heartbeat(data, serverNow());
        if (this.store.known) this.store.setConnection(LIVE);
        return;
      default:
        this.store.addEvents([{ id, at: new Date(Number(id.split("-")[0])).toISOString(), type, data }]);
    }
  }

  #watch() {
    if (this.store.connection.phase === NEEDS_TOKEN) return;
    const silentMs = Date.now() - this.heard;
    if (silentMs > SILENT_MS) this.store.setConnection(STALE, "", this.heard);
    if (silentMs > DEAD_MS) {
      // Open but mute, or hanging while it opens: the other end is gone without a word.
      this.heard = Date.now() - SILENT_MS;
      this.attempt.abort();
    }
  }

  // A change is missing: whoever connects anew is told everything.
  #resync() {
    this.retryMs = 0;
    this.attempt.abort();
  }

  // The stream tells what comes; what was before is fetched after each snapshot.
  async #fetchPast() {
    const [events, journal] = await Promise.allSettled([call(RECENT), call(PAST)]);
    if (events.value) this.store.addEvents(events.value.data);
    if (journal.value) this.store.setHealed(journal.value.data);
  }
}
