/** How a run stands: its state, how long it took, and whether it still gives a sign of life. */

import type { Run } from "./types";

/** The recorder writes a heartbeat every 30 s; four missed ones are a sign that deliveries or the run have stopped. */
export const STALE_AFTER = 120;

export type Standing = Run["state"] | "stale";

type Times = Pick<Run, "state" | "started_at" | "updated_at" | "finished_at">;

export function standing(run: Pick<Run, "state" | "updated_at">, now: number): Standing {
  const silent = run.updated_at !== null && now - run.updated_at > STALE_AFTER;
  return run.state === "running" && silent ? "stale" : run.state;
}

/** Seconds from start to finish, to now while it runs, else to its last sign of life; null when the start is unknown. */
export function runDuration(run: Times, now: number): number | null {
  if (run.started_at === null) return null;
  const alive = standing(run, now) === "running";
  const end = run.finished_at ?? (alive ? now : run.updated_at);
  return end === null ? null : Math.max(0, end - run.started_at);
}

/** Milliseconds until the next look at something: once a second while it runs. */
export function pollInterval(running: boolean): number {
  return running ? 1000 : 5000;
}
