/** The runs of a project, fetched page by page as they come into view, and kept current there. */

import { getRuns } from "../lib/api";
import { pagesOf, type Slice } from "../lib/virtual";
import type { Run } from "../lib/types";

export const PAGE_SIZE = 100;
/** More pages than this are not refreshed at one time: what is in view is never more than a few. */
const MOST_REFRESHED = 3;

export class RunTable {
  /** Newest first; undefined where a page has not been fetched yet. */
  rows = $state.raw<(Run | undefined)[]>([]);
  total = $state<number | null>(null);
  readonly #workspace: string;
  readonly #project: string;
  #fresh = new Set<number>();
  #loadingAll = false;

  constructor(workspace: string, project: string) {
    this.#workspace = workspace;
    this.#project = project;
  }

  /** Fetches again what holds the rows in view. `indices` are positions in `rows`. */
  async refresh(indices: number[], signal: AbortSignal): Promise<void> {
    const pages = new Set(indices.map((index) => Math.floor(index / PAGE_SIZE)));
    // The first page says whether there are new runs.
    pages.add(0);
    for (const page of [...pages].sort((a, b) => a - b).slice(0, MOST_REFRESHED)) {
      await this.#load(page, signal);
    }
  }

  /** Fetches the pages of a slice that are not there yet. */
  async ensure(slice: Slice, signal: AbortSignal): Promise<void> {
    for (const page of pagesOf(slice, PAGE_SIZE)) {
      if (!this.#fresh.has(page)) await this.#load(page, signal);
    }
  }

  /** Fetches everything, for a filter, which has to look at every run. */
  async ensureAll(signal: AbortSignal): Promise<void> {
    if (this.#loadingAll) return;
    this.#loadingAll = true;
    try {
      for (let page = 0; page * PAGE_SIZE < (this.total ?? 1); page++) {
        if (!this.#fresh.has(page)) await this.#load(page, signal);
      }
    } finally {
      this.#loadingAll = false;
    }
  }

  async #load(page: number, signal: AbortSignal): Promise<void> {
    const offset = page * PAGE_SIZE;
    const answer = await getRuns(this.#workspace, this.#project, offset, PAGE_SIZE, signal);
    if (signal.aborted) return;
    const rows = this.#resized(answer.total);
    let changed = rows !== this.rows;
    answer.runs.forEach((run, index) => {
      const known = rows[offset + index];
      if (known === undefined || JSON.stringify(known) !== JSON.stringify(run)) {
        rows[offset + index] = run;
        changed = true;
      }
    });
    this.total = answer.total;
    this.#fresh.add(page);
    if (changed) this.rows = [...rows];
  }

  /** New runs come in at the top: the known rows move down, and are fetched again when next looked at. */
  #resized(total: number): (Run | undefined)[] {
    const grown = total - this.rows.length;
    if (grown === 0) return this.rows;
    this.#fresh.clear();
    if (grown < 0) return this.rows.slice(0, total);
    return [...new Array<undefined>(grown), ...this.rows];
  }
}
