/** Something of the server that the page keeps current: asked for again and again, never while nobody looks. */

import { untrack } from "svelte";
import { asFailure, Refused, type Failure } from "../lib/api";
import { connection } from "./connection.svelte";
import { session } from "./session.svelte";

const RETRY_MS = 5000;

export interface Source<T> {
  load: (signal: AbortSignal) => Promise<T>;
  /** Milliseconds until the next look, from what the last one showed. */
  interval: (data: T) => number;
}

export class Live<T> {
  /** The last good answer; a failure does not take it away. */
  data = $state.raw<T | undefined>(undefined);
  failure = $state.raw<Failure | null>(null);
  #source: Source<T>;
  #shown = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #request: AbortController | undefined;

  constructor(source: Source<T>) {
    this.#source = source;
  }

  /** Starts looking; the function it returns stops (fits `$effect(() => live.start())`). */
  start(): () => void {
    const wake = () => {
      if (!document.hidden) void this.refresh();
    };
    document.addEventListener("visibilitychange", wake);
    window.addEventListener("online", wake);
    // Untracked: loading reads state (which rows are in view), and must not make the caller's effect depend on it.
    void untrack(() => connection.wait(this.refresh()));
    return () => {
      document.removeEventListener("visibilitychange", wake);
      window.removeEventListener("online", wake);
      clearTimeout(this.#timer);
      this.#request?.abort();
    };
  }

  /** Asks now. An answer that equals the last one changes nothing, so that nothing is drawn for it. */
  async refresh(): Promise<void> {
    clearTimeout(this.#timer);
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    let pause = RETRY_MS;
    try {
      const data = await this.#source.load(request.signal);
      if (request.signal.aborted) return;
      const text = JSON.stringify(data);
      if (text !== this.#shown || this.data === undefined) {
        this.#shown = text;
        this.data = data;
      }
      this.failure = null;
      connection.answered();
      pause = this.#source.interval(data);
    } catch (error) {
      if (request.signal.aborted) return;
      this.failure = asFailure(error);
      note(this.failure);
    }
    this.#timer = setTimeout(() => this.#again(), pause);
  }

  #again(): void {
    // While hidden nothing is asked; the visibilitychange listener takes it up again.
    if (!document.hidden) void this.refresh();
  }
}

/** Tells the rest of the page what a failed request means for it. */
export function note(failure: Failure | null): void {
  if (failure === null) return;
  if (!(failure instanceof Refused)) connection.failed();
  else if (failure.status === 401) session.ended();
  else connection.answered();
}
