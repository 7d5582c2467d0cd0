import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { text } from "../text.ts";

const LONG_MS = 8000;

/** Until the first snapshot. */
export function Waiting() {
  const long = useSignal(false);
  useEffect(() => {
    const timer = setTimeout(() => (long.value = true), LONG_MS);
    return () => clearTimeout(timer);
  }, []);
  return (
    <p class="p2pnb-empty" role="status">
      {long.value ? text.waitingLong : text.waiting}
    </p>
  );
}
