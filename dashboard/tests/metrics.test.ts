import { describe, expect, it } from "vitest";
import { matches, sectionOf, summaryColumns, toSections } from "../src/lib/metrics";
import type { JsonObject, Metric, Run } from "../src/lib/types";

function metric(name: string, numeric = true): Metric {
  return { name, count: 1, numeric, min: 0, max: 1, last: 1 };
}

function run(summary: JsonObject): Run {
  return { summary } as Run;
}

describe("sections", () => {
  it("are the part before the first slash", () => {
    expect(sectionOf("train/a/b")).toBe("train");
    expect(sectionOf("loss")).toBe("charts");
    expect(sectionOf("/odd")).toBe("charts");
  });
  it("come plain first, system last, and count like people do", () => {
    const metrics = ["val/acc", "system/gpu", "loss", "grad/layer10", "grad/layer2", "train/x"].map((name) =>
      metric(name),
    );
    const sections = toSections([...metrics, metric("text", false)]);
    expect(sections.map((section) => section.name)).toEqual(["charts", "grad", "train", "val", "system"]);
    expect(sections[1]!.metrics.map((member) => member.name)).toEqual(["grad/layer2", "grad/layer10"]);
    expect(sections[0]!.metrics.map((member) => member.name)).toEqual(["loss"]);
  });
  it("hold only what the filter lets through", () => {
    const sections = toSections([metric("train/loss"), metric("val/loss"), metric("val/acc")], "LOSS val");
    expect(sections.map((section) => section.metrics.map((member) => member.name))).toEqual([["val/loss"]]);
  });
  it("let everything through without a filter", () => expect(matches("anything", " ")).toBe(true));
});

describe("summaryColumns", () => {
  const runs = [run({ loss: 1, acc: 2, text: "x", "system/gpu": 3 }), run({ acc: 1 })];
  it("prefers the numeric keys that most runs have", () => {
    expect(summaryColumns(runs, [], 5)).toEqual(["acc", "loss"]);
    expect(summaryColumns(runs, [], 1)).toEqual(["acc"]);
  });
  it("never moves a column that is shown", () => {
    expect(summaryColumns(runs, ["loss"], 5)).toEqual(["loss", "acc"]);
    expect(summaryColumns([], ["loss", "acc"], 1)).toEqual(["loss", "acc"]);
  });
});
