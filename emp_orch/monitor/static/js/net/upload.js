// Files to the API, with progress: fetch cannot tell how far a body is.
import { authorization } from "./token.js";

// The asset that the file became; `onProgress` hears fractions. A refusal is an Error with the API's words.
export function upload(file, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const form = new FormData();
    form.append("file", file, file.name);
    request.open("POST", "/api/assets");
    for (const [name, value] of Object.entries(authorization())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable && event.total) onProgress(event.loaded / event.total);
    });
    request.addEventListener("load", () => {
      const told = request.response;
      if (told?.success && told.assets?.length) resolve(told.assets[0]);
      else reject(new Error(told?.error ?? `The API answered ${request.status}, without a word.`));
    });
    request.addEventListener("error", () => reject(new Error("The API does not answer.")));
    request.addEventListener("abort", () => reject(new DOMException("given up", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
