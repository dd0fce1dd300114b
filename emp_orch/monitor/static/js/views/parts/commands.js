// What people may ask of emp. Each asks back first, and says what came of it.
import { call, path } from "../../net/api.js";
import { Component, html } from "../../ui/html.js";
import { ui } from "../../ui/dialogs.js";
import { Dialog } from "./dialog.js";

const BY = "the page";
// monitor.role of emp.yaml, which the server wrote into the page.
export const LOOKS = document.documentElement.dataset.role === "read";

// `why`: whether a reason is kept with it; `number`: that one is asked for. `run` gets the reason and the number.
export const COMMANDS = {
  restart: (id) => ({
    button: "Restart", title: `Restart ${id}`, words: "Its programs stop and start again; a job that runs is given back to the queue.",
    run: () => call(path("machines", id, "restart"), { method: "POST" }),
  }),
  drain: (id) => ({
    button: "Drain", title: `Drain ${id}`, words: "Its workers finish their jobs and end. Resume brings them back.", why: true,
    run: (reason) => call(path("machines", id, "drain"), { method: "POST", body: { reason, by: BY } }),
  }),
  pause: (id) => ({
    button: "Pause", title: `Pause ${id}`, words: "It runs on as it is: emp shows what differs on it and repairs nothing, until it is resumed.", why: true,
    run: (reason) => call(path("reconcile", "pause"), { method: "POST", body: { machine_id: id, reason, by: BY } }),
  }),
  resume: (id) => ({
    button: "Resume", title: `Resume ${id}`, words: "Lifts the pause or drain; emp acts on it again.",
    run: () => call(path("reconcile", "resume"), { method: "POST", body: { machine_id: id, by: BY } }),
  }),
  forget: (id) => ({
    button: "Forget", title: `Forget ${id}`, words: "Its last report is deleted. If it ever reports again it is back.",
    run: () => call(path("machines", id), { method: "DELETE" }),
  }),
  program: (id, program) => ({
    button: "Restart", title: `Restart ${program}`, words: `supervisord on ${id} restarts this one program.`,
    run: () => call(path("machines", id, "programs", program, "restart"), { method: "POST" }),
  }),
  pauseFleet: () => ({
    button: "Pause", title: "Pause the fleet", words: "Everything runs on as it is: emp shows what differs and repairs nothing, until it is resumed.", why: true,
    run: (reason) => call(path("reconcile", "pause"), { method: "POST", body: { reason, by: BY } }),
  }),
  resumeFleet: () => ({
    button: "Resume", title: "Resume the fleet", words: "Lifts the pause and closes an open breaker: emp acts again.",
    run: () => call(path("reconcile", "resume"), { method: "POST", body: { by: BY } }),
  }),
  scale: ({ name, most, wanted }) => ({
    button: "Scale", title: `Scale ${name}`, words: "It is held at so many members, whatever waits, until it follows its queue again.", why: true,
    number: { label: `Members, 0 to ${most}`, most, value: wanted ?? 0 },
    run: (reason, size) => call(path("pools", name, "scale"), { method: "POST", body: { size, reason, by: BY } }),
  }),
  follow: ({ name }) => ({
    button: "Follow the queue", title: `Let ${name} follow its queue`, words: "Its size is again what the jobs need that wait for it and run on it.",
    run: () => call(path("pools", name, "scale"), { method: "POST", body: { size: null, by: BY } }),
  }),
  cancel: (id) => ({
    button: "Cancel job", title: `Cancel job ${id}`, words: "A waiting job ends at once, a running one is stopped.", why: true,
    run: (reason) => call(path("jobs", id, "cancel"), { method: "POST", body: { reason } }),
  }),
};

export const ask = (command) => ui.open(({ close }) => html`<${Confirm} command=${command} close=${close} />`);

class Confirm extends Component {
  constructor() {
    super();
    this.state = { busy: false, error: "" };
    this.submit = async (event) => {
      event.preventDefault();
      const { command, close } = this.props;
      const form = new FormData(event.target);
      const reason = form.get("reason")?.trim() ?? "";
      this.setState({ busy: true, error: "" });
      try {
        const { status } = await command.run(reason, Number(form.get("number")));
        close();
        if (status === 202) ui.say(`${command.title}: asked for, not yet confirmed`, "wait");
        else ui.say(`${command.title}: done`);
      } catch (error) {
        this.setState({ busy: false, error: error.message });
      }
    };
  }

  render({ command, close }, { busy, error }) {
    return html`<${Dialog} title=${`${command.title}?`} close=${close}>
      <form onSubmit=${this.submit} class="confirm">
        <p>${command.words}</p>
        ${LOOKS ? html`<p class="problem" role="alert">This page only looks: monitor.role is read in emp.yaml.</p>` : null}
        ${command.number
          ? html`<label>${command.number.label} <input name="number" type="number" required min="0" max=${command.number.most} step="1" defaultValue=${command.number.value} autofocus /></label>`
          : null}
        ${command.why
          ? html`<label>Reason, for whoever looks next <input name="reason" maxlength="200" autocomplete="off" autofocus=${!command.number} /></label>`
          : null}
        ${error ? html`<p class="problem" role="alert">${error}</p>` : null}
        <div class="buttons">
          <button type="button" onClick=${close}>Not now</button>
          <button type="submit" class="primary" disabled=${busy || LOOKS}>${busy ? "Asking…" : command.button}</button>
        </div>
      </form>
    </${Dialog}>`;
  }
}
