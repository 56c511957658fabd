/** A uPlot chart of one metric, set up for this page. The component around it owns fetching and the address. */

import uPlot from "uplot";
import type { StepWindow } from "./api";
import { formatTicks } from "./format";
import { lonePoints, xRange, yRange, type Curve } from "./series";

export const PLOT_HEIGHT = 184;
/** Fixed, so that charts of one column line up and none moves when its numbers grow longer. */
const Y_AXIS_WIDTH = 58;
const X_AXIS_HEIGHT = 26;
/** Dots are drawn when they stand at least this far apart, in CSS pixels. */
const DOT_DISTANCE = 10;

export interface PlotStyle {
  line: string;
  text: string;
  grid: string;
  alarm: string;
}

export interface PlotOptions {
  width: number;
  curve: Curve;
  /** Asked anew at every drawing, since zoom and theme change while the chart lives. */
  window: () => StepWindow | null;
  /** A fixed y range that clips outliers, or null for all of the data. */
  clip: () => [number, number] | null;
  style: () => PlotStyle;
  /** All charts of one key share a cursor. */
  syncKey: string;
  onCursor: (index: number | null) => void;
  onSelect: (window: StepWindow) => void;
  onReset: () => void;
}

export class Plot {
  readonly chart: uPlot;
  #curve: Curve;

  constructor(host: HTMLElement, options: PlotOptions) {
    this.#curve = options.curve;
    this.chart = new uPlot(this.#setup(options), options.curve.columns, host);
  }

  setCurve(curve: Curve): void {
    this.#curve = curve;
    this.chart.setData(curve.columns, true);
  }

  setWidth(width: number): void {
    if (width !== this.chart.width) this.chart.setSize({ width, height: PLOT_HEIGHT });
  }

  /** Draws again with the present window, clip and colours. */
  redraw(): void {
    this.chart.setData(this.chart.data, true);
  }

  destroy(): void {
    this.chart.destroy();
  }

  #setup(options: PlotOptions): uPlot.Options {
    const style = options.style;
    const axis = {
      stroke: () => style().text,
      font: "11px system-ui, sans-serif",
      grid: { stroke: () => style().grid, width: 1 },
      ticks: { show: false },
      gap: 6,
    };
    const hidden = { points: { show: false }, stroke: "transparent", width: 0 };
    return {
      width: options.width,
      height: PLOT_HEIGHT,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      scales: {
        x: { time: false, range: (_, min, max) => this.#xLimits(options.window(), min, max) },
        y: { range: (_, min, max) => options.clip() ?? yRange(min, max) },
      },
      axes: [
        { ...axis, size: X_AXIS_HEIGHT, space: 64, incrs: WHOLE_STEPS, values: tickLabels },
        { ...axis, size: Y_AXIS_WIDTH, space: 32, values: tickLabels },
      ],
      series: [
        {},
        {
          stroke: () => style().line,
          width: 1.5,
          spanGaps: false,
          points: {
            size: 5,
            stroke: () => style().line,
            fill: () => style().line,
            show: (chart) => this.#dotsFit(chart),
            filter: (_, __, show) => (show ? null : lonePoints(this.#curve.columns[1])),
          },
        },
        hidden,
        hidden,
      ],
      bands: [{ series: [3, 2], fill: () => `${style().line}38` }],
      cursor: {
        y: false,
        points: { size: 7 },
        drag: { x: true, y: false, setScale: false },
        bind: { dblclick: () => () => (options.onReset(), null) },
        sync: { key: options.syncKey, setSeries: false, scales: ["x", null], filters: { pub: isMove } },
      },
      hooks: {
        setCursor: [(chart) => options.onCursor(chart.cursor.left! < 0 ? null : (chart.cursor.idx ?? null))],
        setSelect: [(chart) => select(chart, options.onSelect)],
        draw: [(chart) => this.#markNonfinite(chart, style().alarm)],
      },
    };
  }

  #xLimits(window: StepWindow | null, min: number | null, max: number | null): [number, number] {
    return window ? [window.from, window.to] : xRange(min, max);
  }

  /** A reduced curve's points are samples of it: dots would pretend they are the values as logged. */
  #dotsFit(chart: uPlot): boolean {
    const [first, last] = chart.series[0]!.idxs ?? [0, 0];
    return !this.#curve.reduced && (last - first + 1) * DOT_DISTANCE < chart.bbox.width / uPlot.pxRatio;
  }

  /** A cross on the axis where a value was NaN or infinite, since a gap alone may be too narrow to be seen. */
  #markNonfinite(chart: uPlot, colour: string): void {
    const { ctx, bbox } = chart;
    const size = 3 * uPlot.pxRatio;
    const y = bbox.top + bbox.height - size - 1;
    ctx.save();
    ctx.strokeStyle = colour;
    ctx.lineWidth = 1.5 * uPlot.pxRatio;
    ctx.beginPath();
    for (const index of this.#curve.nonfinite.keys()) {
      const x = chart.valToPos(this.#curve.columns[0][index] as number, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.moveTo(x - size, y - size);
      ctx.lineTo(x + size, y + size);
      ctx.moveTo(x + size, y - size);
      ctx.lineTo(x - size, y + size);
    }
    ctx.stroke();
    ctx.restore();
  }
}

/** Steps are whole: an axis with a tick at 2.5 would name a step that cannot be. */
const WHOLE_STEPS = Array.from({ length: 15 }, (_, power) =>
  [1, 2, 5].map((digit) => digit * 10 ** power),
).flat();

function tickLabels(_: uPlot, ticks: number[], __: number, ___: number, distance: number): string[] {
  return formatTicks(ticks, distance);
}

/** Only the cursor's place is shared: a drag in one chart is not a drag in all. */
function isMove(type: string): boolean {
  return type === "mousemove" || type === "mouseleave";
}

function select(chart: uPlot, onSelect: (window: StepWindow) => void): void {
  const { left, width } = chart.select;
  if (width < 3) return;
  const from = Math.floor(chart.posToVal(left, "x"));
  const to = Math.ceil(chart.posToVal(left + width, "x"));
  chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  if (to > from) onSelect({ from, to });
}
