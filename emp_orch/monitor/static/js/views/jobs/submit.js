import { call } from "../../net/api.js";
import { Component, html } from "../../ui/html.js";
import { ui } from "../../ui/dialogs.js";
import { upload } from "../../net/upload.js";
import { LOOKS } from "../parts/commands.js";
import { Inputs } from "./inputs.js";
import { jobDialog } from "./job.js";

const WORKFLOW = {
  workflow: {
    1: { class_type: "CheckpointLoaderSimple", inputs: { ckpt_name: "model.safetensors" } },
    2: { class_type: "CLIPTextEncode", inputs: { text: "a fox in the snow", clip: ["1", 1] } },
    3: { class_type: "CLIPTextEncode", inputs: { text: "", clip: ["1", 1] } },
    4: { class_type: "EmptyLatentImage", inputs: { width: 512, height: 512, batch_size: 1 } },
    5: { class_type: "KSampler", inputs: { seed: 1, steps: 20, cfg: 7, sampler_name: "euler", scheduler: "normal", denoise: 1, model: ["1", 0], positive: ["2", 0], negative: ["3", 0], latent_image: ["4", 0] } },
    6: { class_type: "VAEDecode", inputs: { samples: ["5", 0], vae: ["1", 2] } },
    7: { class_type: "SaveImage", inputs: { filename_prefix: "emp", images: ["6", 0] } },
  },
};
const PRESETS = {
  simulation: { service: "simulation", payload: { prompt: "a fox in the snow", seed: 1, steps: 10, width: 256, height: 256 } },
  comfyui: { service: "comfyui", payload: WORKFLOW },
  "a failure": { service: "simulation", payload: { prompt: "a fox in the snow", fail: "it was asked to fail" } },
};
const text = (value) => JSON.stringify(value, null, 2);
const first = PRESETS.simulation;

// One job by hand. The API checks it and says what does not fit.
export class Submit extends Component {
  constructor() {
    super();
    this.state = { service: first.service, payload: text(first.payload), requirements: "", priority: "0", inputs: [], over: false, error: "", busy: false };
    this.aborts = new Map();
    this.added = 0;
    this.set = (name) => (event) => this.setState({ [name]: event.target.value });
    this.preset = (name) => this.setState({ service: PRESETS[name].service, payload: text(PRESETS[name].payload), error: "" });
    this.submit = this.submit.bind(this);
    this.add = this.add.bind(this);
    this.remove = this.remove.bind(this);
    this.rename = (key, name) => this.change(key, { name });
    this.drop = (event) => {
      event.preventDefault();
      this.setState({ over: false });
      if (event.dataTransfer.files.length) this.add([...event.dataTransfer.files]);
    };
    this.over = (over) => (event) => {
      event.preventDefault();
      if (this.state.over !== over) this.setState({ over });
    };
  }

  componentWillUnmount() {
    for (const abort of this.aborts.values()) abort.abort();
  }

  change(key, what) {
    this.setState(({ inputs }) => ({ inputs: inputs.map((input) => (input.key === key ? { ...input, ...what } : input)) }));
  }

  add(files) {
    for (const file of files) {
      if (file.name.endsWith(".json")) file.text().then((payload) => this.setState({ payload, error: "" }));
      else this.bring(file);
    }
  }

  async bring(file) {
    const key = (this.added += 1);
    const abort = new AbortController();
    this.aborts.set(key, abort);
    this.setState(({ inputs }) => ({ inputs: [...inputs, { key, name: file.name, size: file.size, part: 0 }] }));
    try {
      const { asset } = await upload(file, (part) => this.change(key, { part }), abort.signal);
      this.change(key, { asset });
    } catch (error) {
      if (error.name !== "AbortError") this.change(key, { error: error.message });
    }
    this.aborts.delete(key);
  }

  remove(key) {
    this.aborts.get(key)?.abort();
    this.setState(({ inputs }) => ({ inputs: inputs.filter((input) => input.key !== key) }));
  }

  async submit(event) {
    event.preventDefault();
    const { service, payload, requirements, priority } = this.state;
    this.setState({ busy: true, error: "" });
    try {
      const body = { service, payload: parsed("payload", payload || "{}"), priority: Number(priority) };
      const { inputs } = this.state;
      if (inputs.length) body.inputs = named(inputs);
      if (requirements.trim()) body.requirements = parsed("requirements", requirements);
      const { job_id: id } = await call("/api/jobs", { method: "POST", body });
      ui.say(`job ${id} was submitted`);
      ui.open(jobDialog(id));
    } catch (error) {
      this.setState({ error: error.message });
    }
    this.setState({ busy: false });
  }

  render({ services }, { service, payload, requirements, priority, inputs, over, error, busy }) {
    const uploading = inputs.some((input) => !input.asset && !input.error);
    return html`<form class=${`panel submit${over ? " over" : ""}`} onSubmit=${this.submit} id="submit"
      onDragOver=${this.over(true)} onDragLeave=${this.over(false)} onDrop=${this.drop}>
      <h2>Submit a job</h2>
      <div class="presets" role="group" aria-label="Presets">
        ${Object.keys(PRESETS).map((name) => html`<button type="button" key=${name} onClick=${() => this.preset(name)}>${name}</button>`)}
      </div>
      <label>Service <input name="service" list="services" required value=${service} onInput=${this.set("service")} autocomplete="off" /></label>
      <datalist id="services">${services.map((s) => html`<option key=${s} value=${s} />`)}</datalist>
      <label>Payload, JSON <textarea name="payload" rows="9" spellcheck=${false} value=${payload} onInput=${this.set("payload")}></textarea></label>
      <${Inputs} inputs=${inputs} onAdd=${this.add} onName=${this.rename} onRemove=${this.remove} />
      <label>Requirements, JSON <textarea name="requirements" rows="2" spellcheck=${false} placeholder='{"models": ["flux"]}' value=${requirements} onInput=${this.set("requirements")}></textarea></label>
      <label>Priority, larger is earlier <input name="priority" type="number" step="1" value=${priority} onInput=${this.set("priority")} /></label>
      ${LOOKS ? html`<p class="problem" role="alert">This page only looks: monitor.role is read in emp.yaml.</p>` : null}
      ${error ? html`<p class="problem" role="alert">${error}</p>` : null}
      <button type="submit" class="primary" disabled=${busy || uploading || LOOKS}>${busy ? "Submitting…" : uploading ? "Uploading…" : "Submit"}</button>
    </form>`;
  }
}

function named(inputs) {
  const found = {};
  for (const { name, asset, error } of inputs) {
    if (error) throw new Error(`${name} was not uploaded: remove it, or choose it again`);
    if (name in found) throw new Error(`two input files are called ${name}`);
    found[name] = { asset };
  }
  return found;
}

function parsed(what, json) {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new Error(`${what}: not JSON: ${error.message}`);
  }
}
