// Runs before the first paint, so that a chosen theme does not flash in the other one. The rest is in src/state/theme.svelte.ts.
(function () {
  try {
    var chosen = localStorage.getItem("flightlog.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage may be forbidden; the system's theme is used then.
  }
})();
