import { text } from "../text.ts";

interface Props {
  readonly name: string;
  /** From 0 to 1. */
  readonly value: number;
  readonly paused?: boolean;
}

export function ProgressBar({ name, value, paused = false }: Props) {
  return (
    <progress
      class={`p2pnb-progress${paused ? " p2pnb-paused" : ""}`}
      aria-label={paused ? text.progressPausedOf(name) : text.progressOf(name)}
      max={1}
      value={Math.min(1, Math.max(0, value))}
    />
  );
}
