import type { ComponentChildren } from "preact";
import { text } from "../text.ts";
import { Icon, type IconName } from "./Icon.tsx";

export type NoticeLevel = "info" | "warning" | "error";
const ICONS: Record<NoticeLevel, IconName> = { info: "info", warning: "warning", error: "warning" };

interface Props {
  readonly level: NoticeLevel;
  readonly children: ComponentChildren;
  readonly icon?: IconName;
  readonly onDismiss?: () => void;
}

/** One line that says what is the matter; announced to screen readers. */
export function Notice({ level, children, icon, onDismiss }: Props) {
  return (
    <div class={`p2pnb-notice p2pnb-${level}`} role={level === "error" ? "alert" : "status"}>
      <Icon name={icon ?? ICONS[level]} />
      <div class="p2pnb-notice-text">{children}</div>
      {onDismiss && (
        <button type="button" class="p2pnb-button p2pnb-quiet p2pnb-compact" aria-label={text.dismiss} onClick={onDismiss}>
          <Icon name="cross" />
        </button>
      )}
    </div>
  );
}
