import { html } from "../../ui/html.js";

// The files that a job brings: dropped, or chosen by keyboard; each under the name that the workflow says.
export function Inputs({ inputs, onAdd, onName, onRemove }) {
  const chosen = (event) => {
    onAdd([...event.target.files]);
    event.target.value = ""; // the same file may be chosen again
  };
  return html`<fieldset class="inputs">
    <legend>Input files</legend>
    <label class="drop">
      <span>Drop files here, or choose them. A .json file becomes the payload.</span>
      <input type="file" name="files" multiple onChange=${chosen} />
    </label>
    ${inputs.length ? html`<ul>${inputs.map((input) => html`<li key=${input.key}><${Input} ...${{ input, onName, onRemove }} /></li>`)}</ul>` : null}
  </fieldset>`;
}

function Input({ input, onName, onRemove }) {
  return html`<label>Name in the workflow
      <input name="input-name" required spellcheck=${false} autocomplete="off" value=${input.name} onInput=${(event) => onName(input.key, event.target.value)} />
    </label>
    <button type="button" aria-label=${`Remove ${input.name}`} onClick=${() => onRemove(input.key)}>Remove</button>
    <${State} ...${input} />`;
}

function State({ name, size, part, asset, error }) {
  if (error) return html`<p class="problem" role="alert">${name}: ${error}</p>`;
  if (asset) return html`<p class="dim" role="status">${bytes(size)}, uploaded</p>`;
  return html`<progress max="1" value=${part} aria-label=${`Upload of ${name}`}></progress>`;
}

const bytes = (size) => (size < 1e6 ? `${Math.ceil(size / 1e3)} kB` : `${(size / 1e6).toFixed(1)} MB`);
