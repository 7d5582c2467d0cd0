import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";

const SHOWN_MS = 2000;

/** Copies `value`; where the page may not (no secure context), selects it for the person to copy. */
export function CopyButton({ value, what, compact = false }: { value: string; what: string; compact?: boolean }) {
  const state = useSignal<"idle" | "copied" | "failed">("idle");
  const button = useRef<HTMLButtonElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | null>(null);
  useEffect(() => () => clearTimeout(timer.current ?? undefined), []);
  const copy = async (): Promise<void> => {
    state.value = (await copyText(value, button.current)) ? "copied" : "failed";
    clearTimeout(timer.current ?? undefined);
    timer.current = setTimeout(() => (state.value = "idle"), SHOWN_MS);
  };
  const label = { idle: text.copy, copied: text.copied, failed: text.copyFailed }[state.value];
  return (
    <button
      ref={button}
      type="button"
      class={`p2pnb-button p2pnb-copy${compact ? " p2pnb-compact" : ""}`}
      aria-label={state.value === "idle" ? text.copyOf(what) : label}
      title={compact ? text.copyOf(what) : undefined}
      onClick={() => void copy()}
    >
      <Icon name={state.value === "copied" ? "check" : "copy"} />
      {compact && state.value === "idle" ? null : <span aria-live="polite">{label}</span>}
    </button>
  );
}

async function copyText(value: string, button: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(value); // undefined on plain http
    return true;
  } catch {
    return copySelected(value, button);
  }
}

function copySelected(value: string, button: HTMLElement | null): boolean {
  const area = document.createElement("textarea");
  area.value = value;
  area.readOnly = true;
  area.className = "p2pnb-offscreen";
  (button?.parentElement ?? document.body).append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } catch {
    return false;
  } finally {
    area.remove();
    button?.focus();
  }
}
