// Before the page's modules: one that did not come would leave the page at its first words for ever. The server went away
// just then, or an interface of this host came or went, upon which Chromium gives up all that is on its way. Nothing is
// lost by loading it again, as nothing has been shown yet.
(() => {
  const PATIENCE_MS = 8_000;
  const AGAIN_MS = 2_000;
  const words = () => document.querySelector("#app > .boot");
  let due = 0;

  const again = (why) => {
    if (due || window.emp) return;
    due = setTimeout(() => window.emp || location.reload(), AGAIN_MS);
    if (words()) words().textContent = why;
  };
  addEventListener("error", ({ target }) => target?.tagName === "SCRIPT" && again("The page did not come whole. Trying again…"), true);
  setTimeout(() => again("The page is slow to come. Trying again…"), PATIENCE_MS);
})();
