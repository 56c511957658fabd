/** Whether the server answers, and whether the reader is waiting for it; the top bar and the notice at the bottom show it. */

/** Waiting shorter than this shows nothing: a flash says less than no flash. */
const PATIENCE_MS = 100;

class Connection {
  /** UTC seconds since when no answer has come, or null while all is well. */
  downSince = $state<number | null>(null);
  waiting = $state(false);
  #pending = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  answered(): void {
    this.downSince = null;
  }

  failed(): void {
    this.downSince ??= Date.now() / 1000;
  }

  /** Runs what the reader waits for (polls in the background do not count) under the thin bar. */
  async wait<T>(work: Promise<T>): Promise<T> {
    this.#pending += 1;
    this.#timer ??= setTimeout(() => (this.waiting = true), PATIENCE_MS);
    try {
      return await work;
    } finally {
      this.#pending -= 1;
      if (this.#pending === 0) {
        clearTimeout(this.#timer);
        this.#timer = undefined;
        this.waiting = false;
      }
    }
  }
}

export const connection = new Connection();
