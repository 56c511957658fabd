/** The shapes that the server's JSON API answers with (docs/api.md); nothing here is computed. */

export type RunState = "running" | "finished" | "failed" | "preempted" | "crashed";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonObject = { [key: string]: Json };

/** Which numbers JSON could not carry: "NaN", "Infinity" or "-Infinity", by index or by key. */
export type Nonfinite = Record<string, string>;

export interface User {
  name: string;
  is_admin: boolean;
}

export interface Workspace {
  name: string;
  kind: string;
  role: string;
}

export interface Me {
  user: User;
  workspaces: Workspace[];
  default_workspace: string | null;
}

export interface Project {
  workspace: string;
  name: string;
  runs: number;
  running: number;
  last_activity: number | null;
}

/** What names a run: all three are part of every one of its routes. */
export interface RunRef {
  workspace: string;
  project: string;
  id: string;
}

export interface Run extends RunRef {
  name: string | null;
  group: string | null;
  job_type: string | null;
  tags: string[];
  notes: string | null;
  state: RunState;
  owner: string | null;
  host: string | null;
  command: string | string[] | null;
  config: JsonObject;
  summary: JsonObject;
  step: number | null;
  records: number;
  started_at: number | null;
  updated_at: number | null;
  finished_at: number | null;
  /** Grows with every delivery: while it is the same, nothing of the run has changed. */
  version: number;
  url: string;
}

export interface RunPage {
  runs: Run[];
  total: number;
}

export interface Metric {
  name: string;
  count: number;
  numeric: boolean;
  min: number | null;
  max: number | null;
  last: Json;
}

export interface MetricList {
  metrics: Metric[];
  version: number;
}

export interface Series {
  metric: string;
  count: number;
  /** True when each point stands for a range of values, whose extremes are `low` and `high`. */
  reduced: boolean;
  steps: number[];
  values: (number | null)[];
  low?: (number | null)[];
  high?: (number | null)[];
  nonfinite?: Nonfinite;
  version: number;
}

export interface MediaItem {
  key: string;
  step: number | null;
  timestamp: number;
  type: string;
  /** Absent where the record itself holds all there is, as for a histogram. */
  path?: string;
  size?: number | null;
  sha256?: string;
  width?: number | null;
  height?: number | null;
  caption?: string | null;
  /** Of a histogram: how many values lie between each edge and the next. */
  counts?: number[];
  edges?: number[];
}

export interface ArtifactFile {
  path: string;
  size: number | null;
}
