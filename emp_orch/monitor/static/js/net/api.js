// Calls of the API, under the page's own origin. A refusal is an Error with the API's words.
import { authorization } from "./token.js";

export async function call(path, { method = "GET", body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      signal,
      cache: "no-store",
      headers: { ...authorization(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The API does not answer.");
  }
  const told = await answer.json().catch(() => null);
  if (!told) throw new Error(`The API answered ${answer.status}, without a word.`);
  if (told.success === false) throw Object.assign(new Error(told.error ?? `The API answered ${answer.status}.`), { status: answer.status });
  return { status: answer.status, ...told };
}

export const path = (...parts) => `/api/${parts.map(encodeURIComponent).join("/")}`;
