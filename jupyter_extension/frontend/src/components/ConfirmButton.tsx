import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Icon, type IconName } from "./Icon.tsx";

interface Props {
  readonly icon?: IconName;
  readonly label: string;
  /** What it is for assistive technology, if `label` alone does not tell. */
  readonly title?: string;
  readonly ask: string;
  readonly yes: string;
  readonly no: string;
  readonly onConfirm: () => void;
}

/** A button that asks back, in its own place. The harmless answer gets the focus, and Escape is one. */
export function ConfirmButton({ icon, label, title, ask, yes, no, onConfirm }: Props) {
  const asking = useSignal(false);
  const focused = useRef<HTMLButtonElement>(null);
  const answered = useRef(false); // once: a button that just appeared takes no focus
  useLayoutEffect(() => {
    if (asking.value || answered.current) focused.current?.focus();
  }, [asking.value]);
  if (!asking.value) {
    return (
      <button
        ref={focused}
        type="button"
        class="p2pnb-button p2pnb-quiet"
        {...(title === undefined ? {} : { "aria-label": title })}
        onClick={() => (asking.value = true)}
      >
        {icon && <Icon name={icon} />}
        {label}
      </button>
    );
  }
  const answer = (confirmed: boolean): void => {
    asking.value = false;
    answered.current = true;
    if (confirmed) onConfirm();
  };
  return (
    <span
      class="p2pnb-row p2pnb-confirm"
      role="group"
      aria-label={ask}
      onKeyDown={(event) => event.key === "Escape" && answer(false)}
    >
      <span class="p2pnb-hint">{ask}</span>
      <button type="button" class="p2pnb-button p2pnb-danger" onClick={() => answer(true)}>
        {yes}
      </button>
      <button type="button" class="p2pnb-button" ref={focused} onClick={() => answer(false)}>
        {no}
      </button>
    </span>
  );
}
