import { text } from "../text.ts";

/** `value` from 0 to 1. */
export function ProgressBar({ name, value }: { readonly name: string; readonly value: number }) {
  return <progress class="p2pnb-progress" aria-label={text.progressOf(name)} max={1} value={Math.min(1, Math.max(0, value))} />;
}
