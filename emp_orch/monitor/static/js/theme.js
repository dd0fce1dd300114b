// Loaded before the page is drawn, so that it never flashes in the other scheme. Without a choice the system's counts.
(() => {
  const KEY = "emp-theme";
  const chosen = localStorage.getItem(KEY);
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  window.empTheme = {
    get now() {
      const own = document.documentElement.dataset.theme;
      return own ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    },
    toggle() {
      const next = this.now === "dark" ? "light" : "dark";
      document.documentElement.dataset.theme = next;
      localStorage.setItem(KEY, next);
      dispatchEvent(new Event("emp-theme"));
    },
  };
})();
