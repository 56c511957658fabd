/** A text as one word of a shell command that people copy; names from runs must not become commands. */
export function shellQuote(text: string): string {
  return /^[\w.@%+=:,/-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}
