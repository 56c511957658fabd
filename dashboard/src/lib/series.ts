/** From a series as the server answers it to the columns that a chart draws. */

import type { StepWindow } from "./api";
import type { Series } from "./types";

type Column = (number | null)[];

export interface Curve {
  /** x, value, and for a reduced series the band's low and high; without one these two are all null. */
  columns: [x: number[], value: Column, low: Column, high: Column];
  reduced: boolean;
  /** Values behind the curve in its window (many per point when reduced). */
  count: number;
  /** Index -> "NaN", "Infinity", "-Infinity". */
  nonfinite: Map<number, string>;
}

export function toCurve(series: Series): Curve {
  const nothing: Column = series.steps.map(() => null);
  const nonfinite = new Map(
    Object.entries(series.nonfinite ?? {}).map(([index, word]) => [Number(index), word] as const),
  );
  return {
    columns: [
      series.steps,
      series.values,
      series.reduced ? (series.low ?? nothing) : nothing,
      series.reduced ? (series.high ?? nothing) : nothing,
    ],
    reduced: series.reduced,
    count: series.count,
    nonfinite,
  };
}

/** Why there is nothing to draw, or null when there is. */
export function whyEmpty(curve: Curve, window: StepWindow | null): string | null {
  const [x, values, low] = curve.columns;
  if (x.length === 0) {
    return window
      ? `No value of this metric between step ${window.from} and step ${window.to}.`
      : "This run has no value of this metric yet.";
  }
  if (values.every((value) => value === null) && low.every((value) => value === null)) {
    const words = [...new Set(curve.nonfinite.values())].join(" or ") || "empty";
    return x.length === 1 ? `The only value is ${words}.` : `All ${x.length} values are ${words}.`;
  }
  return null;
}

/** Indices that have a value but no neighbour to draw a line to: without a dot they would not be seen. */
export function lonePoints(values: Column): number[] {
  const known = (index: number) => values[index] !== null && values[index] !== undefined;
  const lone: number[] = [];
  for (let index = 0; index < values.length; index++) {
    if (known(index) && !known(index - 1) && !known(index + 1)) lone.push(index);
  }
  return lone;
}

/** y from the data, with a little air; a flat line gets a range around it so that it stands in the middle. */
export function yRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null || !Number.isFinite(min) || !Number.isFinite(max)) return [0, 1];
  if (min === max) {
    const around = Math.abs(min) * 0.05 || 1;
    return [min - around, max + around];
  }
  const air = (max - min) * 0.05;
  return [min - air, max + air];
}

/** Outliers count as such when they make the range this many times as high as that of the other 98 %. */
const FLATTENED = 3;

/**
 * The range of all but the lowest and highest 1 % of values, where the rest would be flattened by them; else null.
 * Fewer than 20 values have no outliers: every one of them is news.
 */
export function clippedRange(curve: Curve): [number, number] | null {
  const [, values, low, high] = curve.columns;
  const drawn = [...values, ...low, ...high].filter((value): value is number => typeof value === "number");
  if (values.length < 20 || drawn.length < 20) return null;
  drawn.sort((a, b) => a - b);
  const at = (share: number) => drawn[Math.round((drawn.length - 1) * share)] as number;
  const [least, most] = [at(0), at(1)];
  const [from, to] = [at(0.01), at(0.99)];
  return to > from && most - least > FLATTENED * (to - from) ? yRange(from, to) : null;
}

/** x from first to last step; a single step stands in the middle. */
export function xRange(min: number | null, max: number | null): [number, number] {
  if (min === null || max === null) return [0, 1];
  return min === max ? [min - 1, max + 1] : [min, max];
}

/** The window around its middle, `factor` times as wide, in whole steps and at least two of them. */
export function scaleWindow(window: StepWindow, factor: number): StepWindow {
  const middle = (window.from + window.to) / 2;
  const half = Math.max(1, ((window.to - window.from) / 2) * factor);
  return { from: Math.floor(middle - half), to: Math.ceil(middle + half) };
}

/** The window moved by `share` of its width. */
export function moveWindow(window: StepWindow, share: number): StepWindow {
  const by = Math.round((window.to - window.from) * share) || Math.sign(share);
  return { from: window.from + by, to: window.to + by };
}

/** A window out of an address's `from` and `to`, or null when they make none. */
export function parseWindow(query: URLSearchParams): StepWindow | null {
  const bound = (name: string) => {
    const text = query.get(name);
    return text !== null && /^-?\d{1,15}$/.test(text) ? Number(text) : null;
  };
  const from = bound("from");
  const to = bound("to");
  return from === null || to === null || from >= to ? null : { from, to };
}
