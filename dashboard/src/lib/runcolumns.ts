/** The columns of the runs table: which there is room for, and how wide each is. */

export const ROW_HEIGHT = 28;
/** Below this the table is a phone's: what can be left out is. */
const NARROW = 700;
const SUMMARY_WIDTH = 104;

export type ColumnKind = "state" | "name" | "step" | "summary" | "started" | "duration";

export interface Column {
  /** Unique in the table; a summary column's key is its metric. */
  key: string;
  kind: ColumnKind;
  title: string;
  width: string;
  right: boolean;
}

function fixed(kind: ColumnKind, width: number, right = true): Column {
  return { key: `:${kind}`, kind, title: kind, width: `${width}px`, right };
}

function summary(key: string, width: number): Column {
  return { key, kind: "summary", title: key, width: `${width}px`, right: true };
}

const NAME: Column = { key: ":name", kind: "name", title: "name", width: "minmax(0, 1fr)", right: false };

export function columnsFor(width: number, summaryKeys: string[]): Column[] {
  if (width < NARROW) {
    return [
      fixed("state", 92, false),
      NAME,
      ...summaryKeys.slice(0, 1).map((key) => summary(key, 72)),
      fixed("started", 76),
    ];
  }
  // 660 is what the other columns and a readable name take.
  const room = Math.max(0, Math.floor((width - 660) / (SUMMARY_WIDTH + 16)));
  return [
    fixed("state", 92, false),
    NAME,
    fixed("step", 64),
    ...summaryKeys.slice(0, room).map((key) => summary(key, SUMMARY_WIDTH)),
    fixed("started", 104),
    fixed("duration", 88),
  ];
}

export function gridColumns(columns: Column[]): string {
  return columns.map((column) => column.width).join(" ");
}
