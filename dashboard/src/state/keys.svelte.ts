/** Keys of the page. Screens add theirs while they are shown; typing in a field is never a command. */

import { untrack } from "svelte";

export interface Key {
  key: string;
  says: string;
  run?: (event: KeyboardEvent) => void;
}

class Keys {
  list = $state.raw<Key[]>([]);

  constructor() {
    document.addEventListener("keydown", (event) => this.#press(event));
  }

  /** Adds keys; the function it returns takes them away again (fits `$effect`). */
  add(keys: Key[]): () => void {
    // Untracked: an effect that adds keys must not run again because keys were added.
    this.list = [...untrack(() => this.list), ...keys];
    return () => {
      this.list = untrack(() => this.list).filter((key) => !keys.includes(key));
    };
  }

  #press(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target as HTMLElement;
    if (target.closest("input, textarea, select, dialog[open]")) return;
    const found = this.list.find((key) => key.key === event.key && key.run);
    if (!found?.run) return;
    event.preventDefault();
    found.run(event);
  }
}

export const keys = new Keys();

/** `/` puts the cursor into the screen's filter. */
export function filterKey(field: () => HTMLInputElement | undefined): Key {
  return { key: "/", says: "to the filter", run: () => field()?.focus() };
}
