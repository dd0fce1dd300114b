// Reads an event stream from fetch(). Unlike EventSource it sees the status, sends the token as a header and gets events
// of every type. Format: HTML standard, §9.2.6.
export class Parser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.rest = "";
    this.id = "";
    this.#reset();
  }

  feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  #reset() {
    this.type = "";
    this.data = [];
  }

  #line(line) {
    if (line === "") {
      if (this.data.length) this.onEvent({ type: this.type || "message", id: this.id, data: this.data.join("\n") });
      this.#reset();
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.type = value;
    else if (field === "data") this.data.push(value);
    else if (field === "id") this.id = value;
  }
}

// Resolves when the stream ends; rejects when it breaks or `signal` aborts it.
export async function read(body, onEvent, onBytes) {
  const parser = new Parser(onEvent);
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    onBytes();
    parser.feed(value);
  }
}
