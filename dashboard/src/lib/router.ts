/**
 * Addresses of the page and back. Pure; src/state/location.svelte.ts binds it to the browser's history.
 *
 *     /                                projects
 *     /w/<workspace>                   projects of one workspace
 *     /w/<workspace>/<project>         runs
 *     /w/<workspace>/<project>/runs/<id>
 */

import type { RunRef } from "./types";

export type Route =
  | { screen: "projects"; workspace: string | null }
  | { screen: "runs"; workspace: string; project: string }
  | { screen: "run"; ref: RunRef }
  | { screen: "missing"; path: string };

export function parseRoute(path: string): Route {
  const missing: Route = { screen: "missing", path };
  let parts: string[];
  try {
    parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  } catch {
    // A stray "%" in a hand-typed address.
    return missing;
  }
  if (parts.length === 0) return { screen: "projects", workspace: null };
  const [root, workspace, project, runs, id] = parts;
  if (root !== "w" || !workspace) return missing;
  if (parts.length === 2) return { screen: "projects", workspace };
  if (parts.length === 3 && project) return { screen: "runs", workspace, project };
  if (parts.length === 5 && project && runs === "runs" && id) {
    return { screen: "run", ref: { workspace, project, id } };
  }
  return missing;
}

/** Joins path segments, each encoded: a name may hold anything, and must never add a segment or a query. */
export function joinPath(...segments: string[]): string {
  return "/" + segments.map(encodeSegment).join("/");
}

function encodeSegment(segment: string): string {
  // "." and ".." survive encodeURIComponent, and a browser resolves them away (as %2e too). No name may be one; should a hostile
  // one be, its address leads nowhere instead of elsewhere.
  if (segment === "." || segment === "..") return segment.replaceAll(".", "%252E");
  return encodeURIComponent(segment);
}

export function workspacePath(workspace: string): string {
  return joinPath("w", workspace);
}

export function projectPath(workspace: string, project: string): string {
  return joinPath("w", workspace, project);
}

export function runPath(ref: RunRef): string {
  return joinPath("w", ref.workspace, ref.project, "runs", ref.id);
}

/** The query with some fields changed; null or "" takes a field out, so that the plain view has the plain address. */
export function withQuery(search: string, changes: Record<string, string | string[] | null>): string {
  const query = new URLSearchParams(search);
  for (const [name, value] of Object.entries(changes)) {
    query.delete(name);
    for (const item of Array.isArray(value) ? value : [value]) {
      if (item) query.append(name, item);
    }
  }
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

/** The API key of an address like `/#key=…`, or null. */
export function keyFromFragment(fragment: string): string | null {
  const key = new URLSearchParams(fragment.replace(/^#/, "")).get("key");
  return key === null || key.trim() === "" ? null : key.trim();
}
