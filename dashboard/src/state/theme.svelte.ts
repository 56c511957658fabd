/** Light, dark, or as the system has it. public/theme.js applies the stored choice before the first paint. */

export type Choice = "system" | "light" | "dark";

const KEY = "flightlog.theme";
const NEXT: Record<Choice, Choice> = { system: "light", light: "dark", dark: "system" };

function stored(): Choice {
  try {
    const value = localStorage.getItem(KEY);
    return value === "light" || value === "dark" ? value : "system";
  } catch {
    return "system";
  }
}

class Theme {
  choice = $state<Choice>(stored());
  #systemDark = $state(false);
  /** What is shown. */
  shown: "light" | "dark" = $derived(
    this.choice === "system" ? (this.#systemDark ? "dark" : "light") : this.choice,
  );

  constructor() {
    const media = window.matchMedia("(prefers-color-scheme: dark)");
    this.#systemDark = media.matches;
    media.addEventListener("change", (event) => (this.#systemDark = event.matches));
  }

  next(): void {
    this.choice = NEXT[this.choice];
    const root = document.documentElement;
    if (this.choice === "system") delete root.dataset.theme;
    else root.dataset.theme = this.choice;
    try {
      if (this.choice === "system") localStorage.removeItem(KEY);
      else localStorage.setItem(KEY, this.choice);
    } catch {
      // Forbidden storage: the choice lasts until the page is closed.
    }
  }
}

export const theme = new Theme();
