import { useRef } from "preact/hooks";
import { TABS, type Tab, type TabsModel } from "../models/tabs.ts";
import { text } from "../text.ts";

interface Props {
  readonly tabs: TabsModel;
  readonly id: string;
}

/** ARIA tabs with roving focus: arrows, Home and End move and select (WAI-ARIA APG, "Tabs"). */
export function TabBar({ tabs, id }: Props) {
  const list = useRef<HTMLDivElement>(null);
  const keyDown = (event: KeyboardEvent): void => {
    const next = after(tabs.active.value, event.key);
    if (next === null) return;
    event.preventDefault();
    event.stopPropagation();
    tabs.active.value = next;
    list.current?.querySelector<HTMLElement>(`[data-tab="${next}"]`)?.focus();
  };
  return (
    <div ref={list} class="p2pnb-tabs" role="tablist" aria-label={text.tablist} onKeyDown={keyDown}>
      {TABS.map((tab) => (
        <TabButton key={tab} tabs={tabs} tab={tab} id={id} />
      ))}
    </div>
  );
}

function TabButton({ tabs, tab, id }: Props & { readonly tab: Tab }) {
  const active = tabs.active.value === tab;
  const unread = tabs.unread[tab].value;
  return (
    <button
      type="button"
      role="tab"
      id={`${id}-tab-${tab}`}
      data-tab={tab}
      class="p2pnb-tab"
      aria-selected={active}
      aria-controls={`${id}-panel`}
      tabIndex={active ? 0 : -1}
      onClick={() => (tabs.active.value = tab)}
    >
      {text.tabs[tab]}
      {unread > 0 && (
        <span class="p2pnb-unread">
          <span aria-hidden="true">{unread > 99 ? "99+" : unread}</span>
          <span class="p2pnb-sr">{text.unread(unread)}</span>
        </span>
      )}
    </button>
  );
}

function after(tab: Tab, key: string): Tab | null {
  const index = TABS.indexOf(tab);
  switch (key) {
    case "ArrowRight":
      return TABS[(index + 1) % TABS.length] ?? null;
    case "ArrowLeft":
      return TABS.at(index - 1) ?? null;
    case "Home":
      return TABS[0];
    case "End":
      return TABS.at(-1) ?? null;
    default:
      return null;
  }
}
