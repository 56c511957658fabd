/** `j`, `k` and `Enter` in a table: the focus itself moves along the rows' links, so that Enter is the browser's own. */

import { keys } from "./keys.svelte";

interface Table {
  length: () => number;
  /** Puts row `index` into the document, and in view, before it gets the focus; it may have to be fetched. */
  reveal?: (index: number) => Promise<void> | void;
}

/** Rows mark their link with `data-row={index}`. Call it during a component's initialisation. */
export function rowKeys(root: () => HTMLElement | undefined, table: Table): void {
  let current = -1;
  let underWay = 0;

  async function move(by: number) {
    const length = table.length();
    if (length === 0) return;
    const focused = document.activeElement?.closest<HTMLElement>("[data-row]");
    if (focused && underWay === 0) current = Number(focused.dataset.row);
    const wanted = Math.min(length - 1, Math.max(0, current + by));
    current = wanted;
    underWay++;
    try {
      await table.reveal?.(wanted);
    } finally {
      underWay--;
    }
    if (current !== wanted) return; // another key has moved it on meanwhile
    const link = root()?.querySelector<HTMLElement>(`[data-row="${wanted}"]`);
    link?.focus({ preventScroll: table.reveal !== undefined });
  }

  $effect(() =>
    keys.add([
      { key: "j", says: "next row", run: () => void move(1) },
      { key: "k", says: "row before", run: () => void move(-1) },
      { key: "Enter", says: "opens the row" },
    ]),
  );
}
