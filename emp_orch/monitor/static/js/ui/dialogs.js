// What the page itself is at: the open dialog, and what it just said.
const TOAST_MS = 6_000;

class Ui {
  constructor() {
    this.dialog = null;
    this.toast = null;
    this.onChange = () => {};
  }

  // `content` is called with `close` and draws the dialog.
  open(content) {
    this.dialog = content;
    this.onChange();
  }

  close() {
    if (!this.dialog) return;
    this.dialog = null;
    this.onChange();
  }

  say(words, tone = "ok") {
    const toast = { words, tone };
    this.toast = toast;
    this.onChange();
    setTimeout(() => {
      if (this.toast !== toast) return;
      this.toast = null;
      this.onChange();
    }, TOAST_MS);
  }
}

export const ui = new Ui();
