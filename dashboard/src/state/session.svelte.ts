/** Who is signed in. The cookie is HttpOnly, so the server is asked; a 401 anywhere ends the session here too. */

import { asFailure, getMe, Refused, signIn, signOut, type Failure } from "../lib/api";
import type { Me } from "../lib/types";
import { connection } from "./connection.svelte";

const RETRY_MS = 2000;

class Session {
  status = $state<"unknown" | "in" | "out">("unknown");
  me = $state.raw<Me | null>(null);
  /** Why the last sign-in, or the first question to the server, failed. */
  failure = $state.raw<Failure | null>(null);

  /** Finds out who is signed in, and keeps asking while the server does not answer. */
  async begin(key: string | null): Promise<void> {
    if (key !== null && (await this.signIn(key))) return;
    if (key !== null && this.failure instanceof Refused) {
      this.status = "out";
      return;
    }
    await this.#ask();
    if (this.status === "unknown") setTimeout(() => void this.begin(key), RETRY_MS);
  }

  async signIn(key: string): Promise<boolean> {
    try {
      await connection.wait(signIn(key));
      await this.#ask();
      return this.status === "in";
    } catch (error) {
      this.failure = asFailure(error);
      return false;
    }
  }

  async signOut(): Promise<void> {
    try {
      await connection.wait(signOut());
    } catch (error) {
      const failure = asFailure(error);
      if (!(failure instanceof Refused && failure.status === 401)) {
        // The cookie may still be valid: saying "signed out" would be a lie.
        connection.failed();
        return;
      }
    }
    this.ended();
  }

  /** The server no longer knows us: back to the key, at the same address. */
  ended(): void {
    this.me = null;
    this.failure = null;
    this.status = "out";
  }

  async #ask(): Promise<void> {
    try {
      this.me = await connection.wait(getMe());
      this.failure = null;
      this.status = "in";
      connection.answered();
    } catch (error) {
      const failure = asFailure(error);
      if (failure instanceof Refused && failure.status === 401) this.ended();
      else this.failure = failure;
    }
  }
}

export const session = new Session();
