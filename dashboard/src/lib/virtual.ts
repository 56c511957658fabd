/** Which rows of a long list are in view, so that only those are drawn. */

export interface Slice {
  first: number;
  /** One past the last. */
  end: number;
}

export function visibleSlice(
  scrollTop: number,
  height: number,
  rowHeight: number,
  total: number,
  spare = 8,
): Slice {
  const first = Math.max(0, Math.floor(scrollTop / rowHeight) - spare);
  const end = Math.min(total, Math.ceil((scrollTop + height) / rowHeight) + spare);
  return { first: Math.min(first, end), end };
}

/** Where to scroll so that row `index` is wholly in view, moving as little as possible. */
export function scrollToRow(index: number, scrollTop: number, height: number, rowHeight: number): number {
  const top = index * rowHeight;
  if (top < scrollTop) return top;
  const bottom = top + rowHeight;
  return bottom > scrollTop + height ? bottom - height : scrollTop;
}

/** The pages of `size` rows that cover a slice. */
export function pagesOf(slice: Slice, size: number): number[] {
  const pages: number[] = [];
  for (let page = Math.floor(slice.first / size); page * size < slice.end; page++) pages.push(page);
  return pages;
}
