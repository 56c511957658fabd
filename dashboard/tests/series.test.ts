import { describe, expect, it } from "vitest";
import {
  clippedRange,
  lonePoints,
  moveWindow,
  parseWindow,
  scaleWindow,
  toCurve,
  whyEmpty,
  xRange,
  yRange,
} from "../src/lib/series";
import type { Series } from "../src/lib/types";

function series(changes: Partial<Series>): Series {
  return {
    metric: "loss",
    count: 3,
    reduced: false,
    steps: [0, 1, 2],
    values: [3, null, 1],
    version: 1,
    ...changes,
  };
}

describe("toCurve", () => {
  it("keeps nulls as gaps and says which values they were", () => {
    const curve = toCurve(series({ nonfinite: { "1": "NaN" } }));
    expect(curve.columns[1]).toEqual([3, null, 1]);
    expect([...curve.nonfinite]).toEqual([[1, "NaN"]]);
  });
  it("has a band only where the series is reduced", () => {
    expect(toCurve(series({})).columns[2]).toEqual([null, null, null]);
    const reduced = toCurve(series({ reduced: true, low: [1, 2, 0], high: [4, 2, 5] }));
    expect(reduced.columns.slice(2)).toEqual([
      [1, 2, 0],
      [4, 2, 5],
    ]);
  });
});

describe("whyEmpty", () => {
  it("says nothing when there is something to see", () => {
    expect(whyEmpty(toCurve(series({})), null)).toBeNull();
  });
  it("tells an empty window, an empty metric and one of nothing but NaN apart", () => {
    const none = toCurve(series({ steps: [], values: [] }));
    expect(whyEmpty(none, null)).toContain("no value of this metric yet");
    expect(whyEmpty(none, { from: 5, to: 9 })).toContain("between step 5 and step 9");
    const nan = toCurve(
      series({ steps: [0, 1], values: [null, null], nonfinite: { "0": "NaN", "1": "NaN" } }),
    );
    expect(whyEmpty(nan, null)).toBe("All 2 values are NaN.");
  });
});

describe("lonePoints", () => {
  it("finds values between gaps and at the ends", () => {
    expect(lonePoints([1, null, 2, null, 3, 4, null, 5])).toEqual([0, 2, 7]);
    expect(lonePoints([7])).toEqual([0]);
    expect(lonePoints([1, 2, 3])).toEqual([]);
  });
});

describe("ranges", () => {
  it("start at the data, not at zero", () => {
    const [from, to] = yRange(100, 110);
    expect(from).toBeCloseTo(99.5);
    expect(to).toBeCloseTo(110.5);
  });
  it("put a flat line or a single step in the middle", () => {
    expect(yRange(0, 0)).toEqual([-1, 1]);
    const [from, to] = yRange(-4, -4);
    expect((from + to) / 2).toBeCloseTo(-4);
    expect(xRange(5, 5)).toEqual([4, 6]);
  });
});

describe("clippedRange", () => {
  const steps = Array.from({ length: 300 }, (_, step) => step);
  const quiet = steps.map((step) => Math.sin(step));
  it("leaves a lone outlier outside", () => {
    const values = quiet.map((value, step) => (step === 100 ? 1000 : value));
    const range = clippedRange(toCurve(series({ steps, values })));
    expect(range).not.toBeNull();
    expect(range![1]).toBeLessThan(2);
  });
  it("clips nothing where nothing is flattened, and nothing of a few values", () => {
    expect(clippedRange(toCurve(series({ steps, values: quiet })))).toBeNull();
    expect(clippedRange(toCurve(series({ values: [1, 1, 1000] })))).toBeNull();
  });
});

describe("windows", () => {
  it("are read from the address, and refused when they make none", () => {
    const parse = (text: string) => parseWindow(new URLSearchParams(text));
    expect(parse("from=-3&to=20")).toEqual({ from: -3, to: 20 });
    for (const text of ["", "from=1", "from=5&to=5", "from=9&to=1", "from=a&to=2", "from=1e3&to=2e9"]) {
      expect(parse(text), text).toBeNull();
    }
  });
  it("zoom around their middle, never to nothing", () => {
    expect(scaleWindow({ from: 0, to: 100 }, 0.5)).toEqual({ from: 25, to: 75 });
    const least = scaleWindow({ from: 10, to: 11 }, 0.5);
    expect(least.to).toBeGreaterThan(least.from);
  });
  it("move by a share, and by at least a step", () => {
    expect(moveWindow({ from: 0, to: 100 }, 0.25)).toEqual({ from: 25, to: 125 });
    expect(moveWindow({ from: 4, to: 5 }, -0.25)).toEqual({ from: 3, to: 4 });
  });
});
