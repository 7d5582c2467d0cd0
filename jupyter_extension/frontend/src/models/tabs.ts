/** Which tab one view of the panel shows, and what is new in the others. */
import { type ReadonlySignal, computed, effect, signal } from "@preact/signals";
import type { ItemKind } from "../ports/protocol.ts";
import type { RoomModel } from "./room.ts";

export const TABS = ["room", "chat", "files", "data"] as const;
export type Tab = (typeof TABS)[number];

export class TabsModel {
  readonly active = signal<Tab>("room");
  readonly #room: RoomModel;
  readonly #unseen = { chat: signal(0), files: signal(0), data: signal(0) };
  #known: ReadonlySet<string> | null = null;
  readonly #stop: () => void;

  /** How many new things wait in each tab. */
  readonly unread: Readonly<Record<Tab, ReadonlySignal<number>>>;

  constructor(room: RoomModel, first: Tab = "room") {
    this.#room = room;
    this.active.value = first;
    const { chat, files, data } = this.#unseen;
    this.unread = { room: computed(() => 0), chat, files, data };
    const stopCounting = effect(() => this.#count());
    const stopSeeing = effect(() => {
      const tab = this.active.value;
      if (tab !== "room") this.#unseen[tab].value = 0;
    });
    this.#stop = () => {
      stopCounting();
      stopSeeing();
    };
  }

  dispose(): void {
    this.#stop();
  }

  /** Count what was not known before; what a panel finds when it opens is not news. */
  #count(): void {
    const { messages, items, offers, shares, seq } = this.#room;
    if (seq.value === null) return;
    const entries = new Map<string, Tab | null>();
    for (const message of messages.value) entries.set(`message ${message.key}`, message.mine ? null : "chat");
    for (const item of items.value) entries.set(`item ${item.key}`, tabOf(item));
    for (const offer of offers.value) entries.set(`offer ${offer.id}`, tabOf(offer));
    for (const share of shares.value) {
      entries.set(`share ${share.owner} ${share.key} ${share.version}`, share.mine ? null : "data");
    }
    for (const [key, tab] of entries) {
      if (this.#known === null || this.#known.has(key)) continue;
      if (tab === null || tab === "room" || tab === this.active.peek()) continue;
      this.#unseen[tab].value = this.#unseen[tab].peek() + 1;
    }
    this.#known = new Set(entries.keys());
  }
}

function tabOf({ kind }: { readonly kind: ItemKind }): Tab {
  return kind === "object" ? "data" : "files";
}
