import { html } from "../ui/html.js";

export function TokenForm({ why, onToken }) {
  const submit = (event) => {
    event.preventDefault();
    onToken(new FormData(event.target).get("token").trim());
  };
  return html`
    <form class="panel token" onSubmit=${submit}>
      <h2>This API wants a token</h2>
      <p class="muted">It is the value of <code>api.token</code> in emp.yaml, and is kept for this tab only.</p>
      ${why ? html`<p class="problem" role="alert">${why}</p>` : null}
      <label>Token <input name="token" type="password" autocomplete="off" required autofocus /></label>
      <button type="submit">Open</button>
    </form>
  `;
}
