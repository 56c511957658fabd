/** One function per route of the server's JSON API, and the two ways in which a request fails. */

import { joinPath } from "./router";
import type { Json, Me, MediaItem, MetricList, Project, Run, RunPage, RunRef, Series, User } from "./types";

/** The server answered, and the answer is no. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
    this.name = "Refused";
  }
}

/** No usable answer came: the server is down, restarting, or something else answers in its place. */
export class Unreachable extends Error {
  constructor(detail: string) {
    super(detail);
    this.name = "Unreachable";
  }
}

export type Failure = Refused | Unreachable;

export interface StepWindow {
  from: number;
  to: number;
}

const ROOT = "/api/v1";

async function request(method: string, path: string, signal?: AbortSignal, body?: Json): Promise<Response> {
  const headers: Record<string, string> = { Accept: "application/json" };
  // Another site can send a browser's cookie along, but not this header.
  if (method !== "GET") headers["X-Flightlog"] = "1";
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response: Response;
  try {
    response = await fetch(ROOT + path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      credentials: "same-origin",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response: Response): Promise<Failure> {
  const status = response.status;
  if (status >= 500) return new Unreachable(`The server answered with an error of its own (${status}).`);
  try {
    const answer = (await response.json()) as { error?: unknown; detail?: unknown };
    const code = typeof answer.error === "string" ? answer.error : "unknown";
    const detail = typeof answer.detail === "string" ? answer.detail : `The server refused (${status}).`;
    return new Refused(status, code, detail);
  } catch {
    return new Refused(status, "unknown", `The server refused (${status}).`);
  }
}

async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request("GET", path, signal);
  try {
    return (await response.json()) as T;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("What answers at this address is not a flightlog server.");
  }
}

/** What to tell the reader of an error that may be anything; null for a request that we cancelled ourselves. */
export function asFailure(error: unknown): Failure | null {
  if (error instanceof Refused || error instanceof Unreachable) return error;
  if (error instanceof DOMException && error.name === "AbortError") return null;
  throw error;
}

export async function signIn(apiKey: string): Promise<User> {
  const response = await request("POST", "/session", undefined, { api_key: apiKey });
  return ((await response.json()) as { user: User }).user;
}

export async function signOut(): Promise<void> {
  await request("DELETE", "/session");
}

export function getMe(signal?: AbortSignal): Promise<Me> {
  return get("/me", signal);
}

export async function getProjects(signal?: AbortSignal): Promise<Project[]> {
  return (await get<{ projects: Project[] }>("/projects", signal)).projects;
}

export function getRuns(
  workspace: string,
  project: string,
  offset: number,
  limit: number,
  signal?: AbortSignal,
): Promise<RunPage> {
  return get(`${joinPath("projects", workspace, project, "runs")}?limit=${limit}&offset=${offset}`, signal);
}

function runRoute(ref: RunRef, ...rest: string[]): string {
  return joinPath("runs", ref.workspace, ref.project, ref.id, ...rest);
}

export function getRun(ref: RunRef, signal?: AbortSignal): Promise<Run> {
  return get(runRoute(ref), signal);
}

export function getMetrics(ref: RunRef, signal?: AbortSignal): Promise<MetricList> {
  return get(runRoute(ref, "metrics"), signal);
}

export function seriesPath(ref: RunRef, metric: string, points: number, window: StepWindow | null): string {
  const query = new URLSearchParams({ metric, points: String(points) });
  if (window) {
    query.set("from", String(window.from));
    query.set("to", String(window.to));
  }
  return `${runRoute(ref, "series")}?${query}`;
}

export function getSeries(
  ref: RunRef,
  metric: string,
  points: number,
  window: StepWindow | null,
  signal?: AbortSignal,
): Promise<Series> {
  return get(seriesPath(ref, metric, points, window), signal);
}

export async function getMedia(ref: RunRef, signal?: AbortSignal): Promise<MediaItem[]> {
  return (await get<{ media: MediaItem[] }>(runRoute(ref, "media"), signal)).media;
}

export async function getArtifacts(ref: RunRef, signal?: AbortSignal): Promise<Json[]> {
  return (await get<{ artifacts: Json[] }>(runRoute(ref, "artifacts"), signal)).artifacts;
}

/** The text behind a file's address. */
export async function getText(href: string, signal?: AbortSignal): Promise<string> {
  const response = await request("GET", href.slice(ROOT.length), signal);
  return response.text();
}

/** One version with its manifest, which the list of a run's artifacts may leave out. */
export function getArtifact(
  workspace: string,
  project: string,
  name: string,
  version: string,
  signal?: AbortSignal,
): Promise<Json> {
  return get(joinPath("artifacts", workspace, project, name, version), signal);
}

/** The address of a file of a run, or null for a path that no server would hand out ("..", empty). */
export function runFileUrl(ref: RunRef, path: string): string | null {
  const segments = safeSegments(path);
  return segments && ROOT + runRoute(ref, "files", ...segments);
}

export function artifactFileUrl(
  workspace: string,
  project: string,
  name: string,
  version: string,
  path: string,
): string | null {
  const segments = safeSegments(path);
  return segments && ROOT + joinPath("artifacts", workspace, project, name, version, "files", ...segments);
}

function safeSegments(path: string): string[] | null {
  const segments = path.split("/");
  return segments.some((part) => part === "" || part === "." || part === "..") ? null : segments;
}
