import { describe, expect, it } from "vitest";
import { readArtifact, sortArtifacts } from "../src/lib/artifacts";
import { pollInterval, runDuration, standing } from "../src/lib/life";
import { groupMedia, mediaKind } from "../src/lib/media";
import { columnsFor } from "../src/lib/runcolumns";
import { toLines } from "../src/lib/tree";
import type { MediaItem } from "../src/lib/types";
import { pagesOf, scrollToRow, visibleSlice } from "../src/lib/virtual";

describe("the virtual list", () => {
  it("draws what is in view and a few rows more", () => {
    expect(visibleSlice(0, 280, 28, 1000, 2)).toEqual({ first: 0, end: 12 });
    expect(visibleSlice(28_000 - 280, 280, 28, 1000, 2)).toEqual({ first: 988, end: 1000 });
    expect(visibleSlice(5000, 280, 28, 0)).toEqual({ first: 0, end: 0 });
    expect(visibleSlice(50_000, 280, 28, 10)).toEqual({ first: 10, end: 10 });
  });
  it("scrolls to a row by as little as possible", () => {
    expect(scrollToRow(5, 0, 280, 28)).toBe(0);
    expect(scrollToRow(10, 0, 280, 28)).toBe(28);
    expect(scrollToRow(2, 280, 280, 28)).toBe(56);
  });
  it("knows which pages cover a slice", () => {
    expect(pagesOf({ first: 95, end: 205 }, 100)).toEqual([0, 1, 2]);
    expect(pagesOf({ first: 100, end: 200 }, 100)).toEqual([1]);
    expect(pagesOf({ first: 0, end: 0 }, 100)).toEqual([]);
  });
});

describe("a run's life", () => {
  const now = 10_000;
  it("is stale when it runs and is not heard of", () => {
    expect(standing({ state: "running", updated_at: now - 60 }, now)).toBe("running");
    expect(standing({ state: "running", updated_at: now - 240 }, now)).toBe("stale");
    expect(standing({ state: "finished", updated_at: now - 240 }, now)).toBe("finished");
  });
  it("lasts to its end, to now, or to its last sign", () => {
    const times = { started_at: 9000, updated_at: now - 10, finished_at: null };
    expect(runDuration({ ...times, state: "running" }, now)).toBe(1000);
    expect(runDuration({ ...times, state: "running", updated_at: 9100 }, now)).toBe(100);
    expect(runDuration({ ...times, state: "finished", finished_at: 9500 }, now)).toBe(500);
    expect(runDuration({ ...times, state: "crashed", updated_at: 9100 }, now)).toBe(100);
    expect(runDuration({ ...times, state: "running", started_at: null }, now)).toBeNull();
  });
  it("is looked at more often while it runs", () => {
    expect(pollInterval(true)).toBe(1000);
    expect(pollInterval(false)).toBe(5000);
  });
});

describe("media", () => {
  const item = (key: string, step: number | null): MediaItem => ({
    key,
    step,
    timestamp: 0,
    type: "image",
    path: "p",
    size: 1,
    sha256: "",
  });
  it("are grouped by key, with rising steps", () => {
    const groups = groupMedia([item("b", 20), item("a", 3), item("b", 10), item("b", 20)]);
    expect(groups.map((group) => group.key)).toEqual(["a", "b"]);
    expect(groups[1]!.frames.map((frame) => [frame.step, frame.items.length])).toEqual([
      [10, 1],
      [20, 2],
    ]);
  });
  it("are only shown as what is known", () => {
    expect(mediaKind("image/png")).toBe("image");
    expect(mediaKind("Image")).toBe("image");
    expect(mediaKind("html")).toBe("file");
  });
});

describe("artifacts", () => {
  it("are read with files in either place, and without any", () => {
    const files = [
      { path: "a", size: 3 },
      { path: "b", size: null },
    ];
    expect(readArtifact({ name: "m", version: 3, files })).toMatchObject({ version: "v3", size: 3 });
    expect(readArtifact({ name: "m", version: "v3", manifest: { files } }).files).toHaveLength(2);
    expect(readArtifact({ name: "m", version: "v3", size: 9, aliases: ["best", 4] })).toMatchObject({
      files: null,
      size: 9,
      aliases: ["best"],
    });
    expect(readArtifact("nonsense").name).toBe("");
  });
  it("come by name, the newest first", () => {
    const named = (name: string, version: string) => readArtifact({ name, version });
    const order = sortArtifacts([named("b", "v2"), named("a", "v9"), named("a", "v10")]);
    expect(order.map((one) => `${one.name}:${one.version}`)).toEqual(["a:v10", "a:v9", "b:v2"]);
  });
});

describe("the key table", () => {
  it("opens nested dicts and keeps empty ones as values", () => {
    const lines = toLines({ lr: 0.1, model: { depth: 2, extra: {} } });
    expect(lines.map((line) => [line.path, line.depth, line.text])).toEqual([
      ["lr", 0, "0.1"],
      ["model", 0, null],
      ["model.depth", 1, "2"],
      ["model.extra", 1, "{}"],
    ]);
  });
  it("shows what JSON could not carry", () => {
    expect(toLines({ loss: "Infinity" })[0]!.text).toBe("Infinity");
  });
});

describe("the columns of the runs table", () => {
  const keys = ["a", "b", "c", "d", "e", "f"];
  it("are as many as there is room for", () => {
    const count = (width: number) =>
      columnsFor(width, keys).filter((column) => column.kind === "summary").length;
    expect(count(390)).toBe(1);
    expect(count(800)).toBe(1);
    expect(count(1440)).toBe(6);
  });
});
