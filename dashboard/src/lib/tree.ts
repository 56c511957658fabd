/** Nested dicts (a run's config, a run's summary) as the lines of a key table. */

import { formatExact, formatValue } from "./format";
import type { Json, JsonObject } from "./types";

export interface Line {
  /** The whole path, dots between keys: unique, and what a filter looks at. */
  path: string;
  key: string;
  depth: number;
  /** Null for a line that only opens a nested dict. */
  text: string | null;
  /** What a hover shows, where the text is a shortened number. */
  exact: string | null;
}

function isDict(value: Json): value is JsonObject {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** Lines in the order of the keys as logged; an empty dict is a value of its own. */
export function toLines(object: JsonObject): Line[] {
  const lines: Line[] = [];
  const walk = (dict: JsonObject, prefix: string, depth: number) => {
    for (const [key, value] of Object.entries(dict)) {
      const path = prefix === "" ? key : `${prefix}.${key}`;
      if (isDict(value) && Object.keys(value).length > 0) {
        lines.push({ path, key, depth, text: null, exact: null });
        walk(value, path, depth + 1);
      } else {
        const text = formatValue(value);
        lines.push({ path, key, depth, text, exact: typeof value === "number" ? formatExact(value) : null });
      }
    }
  };
  walk(object, "", 0);
  return lines;
}
