/** Artifact versions, read leniently: fields the server leaves out are shown as unknown, not guessed. */

import type { ArtifactFile, Json, JsonObject } from "./types";

export interface ArtifactVersion {
  name: string;
  version: string;
  type: string;
  aliases: string[];
  size: number | null;
  /** Null when the answer holds no manifest; it is asked for then. */
  files: ArtifactFile[] | null;
}

function dict(value: Json | undefined): JsonObject {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}

function text(value: Json | undefined): string {
  return typeof value === "string" ? value : "";
}

function number(value: Json | undefined): number | null {
  return typeof value === "number" ? value : null;
}

function filesOf(answer: JsonObject): ArtifactFile[] | null {
  const list = Array.isArray(answer.files) ? answer.files : dict(answer.manifest).files;
  if (!Array.isArray(list)) return null;
  return list.map(dict).map((file) => ({ path: text(file.path), size: number(file.size) }));
}

export function readArtifact(answer: Json): ArtifactVersion {
  const fields = dict(answer);
  const files = filesOf(fields);
  const version = fields.version;
  const total = files?.reduce((sum, file) => sum + (file.size ?? 0), 0) ?? null;
  return {
    name: text(fields.name),
    // Numbered per project by the server: "v3", or the number alone.
    version: typeof version === "number" ? `v${version}` : text(version),
    type: text(fields.type),
    aliases: Array.isArray(fields.aliases) ? fields.aliases.map(text).filter(Boolean) : [],
    size: number(fields.size) ?? total,
    files,
  };
}

/** By name, and the newest version of each first. */
export function sortArtifacts(versions: ArtifactVersion[]): ArtifactVersion[] {
  const naturally = new Intl.Collator("en", { numeric: true });
  return [...versions].sort(
    (a, b) => naturally.compare(a.name, b.name) || naturally.compare(b.version, a.version),
  );
}
