/** The browser's address as state, and the one way in which it changes. */

import { parseRoute, withQuery } from "../lib/router";

class Location {
  path = $state(window.location.pathname);
  search = $state(window.location.search);
  route = $derived(parseRoute(this.path));
  query = $derived(new URLSearchParams(this.search));

  constructor() {
    window.addEventListener("popstate", () => this.#read());
    document.addEventListener("click", (event) => this.#followLink(event));
  }

  go(href: string, options: { replace?: boolean } = {}): void {
    if (options.replace) history.replaceState(null, "", href);
    else history.pushState(null, "", href);
    const before = this.path;
    this.#read();
    if (this.path !== before) window.scrollTo(0, 0);
  }

  /** Changes the query of this address. It replaces: Back should leave the screen, not undo letters of a filter. */
  setQuery(changes: Record<string, string | string[] | null>): void {
    const search = withQuery(this.search, changes);
    if (search !== this.search) this.go(this.path + search, { replace: true });
  }

  #read(): void {
    this.path = window.location.pathname;
    this.search = window.location.search;
  }

  /** Plain clicks on plain links stay in the page; everything else (new tab, download, /api) is the browser's. */
  #followLink(event: MouseEvent): void {
    if (event.defaultPrevented || event.button !== 0) return;
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    const link = (event.target as Element | null)?.closest?.("a[href]");
    if (!(link instanceof HTMLAnchorElement) || link.hasAttribute("download") || link.target) return;
    if (link.origin !== window.location.origin || link.pathname.startsWith("/api/")) return;
    if (link.hash && link.pathname === window.location.pathname) return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  }
}

export const location = new Location();
