/** Which charts a run has, in which sections, and which values stand in a table of runs. */

import type { Metric, Run } from "./types";

export const PLAIN_SECTION = "charts";

export interface Section {
  name: string;
  metrics: Metric[];
}

export function sectionOf(metric: string): string {
  const slash = metric.indexOf("/");
  return slash > 0 ? metric.slice(0, slash) : PLAIN_SECTION;
}

/** Numbers in the order in which people look for them ("layer2" before "layer10"). */
const naturally = new Intl.Collator("en", { numeric: true });

/**
 * The numeric metrics by section: plain ones first, then by name, "system" last, since it is looked at when the rest is odd.
 * `filter` keeps the metrics whose name holds every one of its words.
 */
export function toSections(metrics: Metric[], filter = ""): Section[] {
  const sections = new Map<string, Metric[]>();
  for (const metric of metrics) {
    if (!metric.numeric || !matches(metric.name, filter)) continue;
    const name = sectionOf(metric.name);
    sections.set(name, [...(sections.get(name) ?? []), metric]);
  }
  const rank = (name: string) => (name === PLAIN_SECTION ? 0 : name === "system" ? 2 : 1);
  return [...sections]
    .map(([name, members]) => ({
      name,
      metrics: members.sort((a, b) => naturally.compare(a.name, b.name)),
    }))
    .sort((a, b) => rank(a.name) - rank(b.name) || naturally.compare(a.name, b.name));
}

/** True when `text` holds every word of `filter`, in any case and any order. */
export function matches(text: string, filter: string): boolean {
  const lower = text.toLowerCase();
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every((word) => lower.includes(word));
}

/** What a filter of the runs table looks at. */
export function runText(run: Run): string {
  const parts = [run.name, run.id, run.state, run.group, run.job_type, run.owner, run.host, ...run.tags];
  return parts.filter((part) => part !== null && part !== undefined).join(" ");
}

/**
 * Summary keys for the table's columns. Those already shown keep their place (a table must not reflow when live values come);
 * free places go to the numeric keys that most runs have.
 */
export function summaryColumns(runs: Run[], shown: string[], most: number): string[] {
  const counts = new Map<string, number>();
  for (const run of runs) {
    for (const [key, value] of Object.entries(run.summary)) {
      const hidden = key.startsWith("_") || key.startsWith("system/") || shown.includes(key);
      if (typeof value === "number" && !hidden) counts.set(key, (counts.get(key) ?? 0) + 1);
    }
  }
  const fresh = [...counts].sort((a, b) => b[1] - a[1] || naturally.compare(a[0], b[0])).map(([key]) => key);
  return [...shown, ...fresh].slice(0, Math.max(shown.length, most));
}
