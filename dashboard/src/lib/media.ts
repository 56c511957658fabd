/** A run's media by key: images of one key are one strip through the steps. */

import type { MediaItem } from "./types";

export interface MediaGroup {
  key: string;
  /** Steps in rising order, each with the items logged at it. */
  frames: { step: number | null; items: MediaItem[] }[];
}

export function groupMedia(items: MediaItem[]): MediaGroup[] {
  const groups = new Map<string, Map<number | null, MediaItem[]>>();
  for (const item of items) {
    const frames = groups.get(item.key) ?? new Map<number | null, MediaItem[]>();
    frames.set(item.step, [...(frames.get(item.step) ?? []), item]);
    groups.set(item.key, frames);
  }
  return [...groups]
    .sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }))
    .map(([key, frames]) => ({
      key,
      frames: [...frames]
        .map(([step, members]) => ({ step, items: members }))
        .sort((a, b) => (a.step ?? -1) - (b.step ?? -1)),
    }));
}

export type MediaKind = "image" | "audio" | "video" | "text" | "histogram" | "file";

/** How an item is shown. A type this page does not know yet is a file to download. */
export function mediaKind(type: string): MediaKind {
  const family = type.toLowerCase().split("/")[0];
  return family === "image" ||
    family === "audio" ||
    family === "video" ||
    family === "text" ||
    family === "histogram"
    ? family
    : "file";
}
