// Before the page's modules: one that did not come, because the server went away just then, would leave the page at its
// first words for ever. Nothing is lost by loading it again, as nothing has been shown yet.
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
