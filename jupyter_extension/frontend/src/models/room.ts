/** The state the peer sends, as signals; kept whole by sequence numbers. */
import { type ReadonlySignal, batch, computed, signal } from "@preact/signals";
import {
  type Incoming,
  type ItemState,
  MAX_ITEMS,
  MAX_MESSAGES,
  type MessageState,
  type NoticeState,
  type OfferState,
  type PanelState,
  type PeerState,
  type RoomState,
  type ShareState,
  type InviteState,
  type TransferState,
} from "../ports/protocol.ts";

export class RoomModel {
  readonly room = signal<RoomState | null>(null);
  readonly invite = signal<InviteState | null>(null);
  readonly peers = signal<readonly PeerState[]>([]);
  readonly messages = signal<readonly MessageState[]>([]);
  readonly transfers = signal<readonly TransferState[]>([]);
  readonly offers = signal<readonly OfferState[]>([]);
  readonly shares = signal<readonly ShareState[]>([]);
  readonly items = signal<readonly ItemState[]>([]);
  readonly notices = signal<readonly NoticeState[]>([]);

  /** Number of the last message taken; null before the first snapshot. */
  readonly seq = signal<number | null>(null);

  /** There is a room one can act in. */
  readonly open: ReadonlySignal<boolean> = computed(() => {
    const room = this.room.value;
    return room !== null && room.state !== "closed";
  });
  /** People one can send to. */
  readonly present: ReadonlySignal<readonly PeerState[]> = computed(() =>
    this.peers.value.filter((peer) => peer.state !== "gone"),
  );

  /** Take a snapshot or a patch. Returns false if something before it is missing: ask for a snapshot. */
  receive(message: Incoming): boolean {
    if (message.kind === "snapshot") {
      this.#take(message.seq, message.state);
      return true;
    }
    if (message.kind !== "patch") return true;
    const { seq } = this;
    if (seq.value === null) return false;
    if (message.seq <= seq.value) return true;
    if (message.seq > seq.value + 1) return false;
    this.#take(message.seq, message.changes);
    const { appends } = message;
    if (appends?.messages) this.messages.value = newest([...this.messages.value, ...appends.messages], MAX_MESSAGES);
    if (appends?.items) this.items.value = newest([...this.items.value, ...appends.items], MAX_ITEMS);
    return true;
  }

  #take(seq: number, changes: Partial<PanelState>): void {
    batch(() => {
      if (changes.room !== undefined) this.room.value = changes.room;
      if (changes.invite !== undefined) this.invite.value = changes.invite;
      if (changes.peers) this.peers.value = changes.peers;
      if (changes.messages) this.messages.value = changes.messages;
      if (changes.transfers) this.transfers.value = changes.transfers;
      if (changes.offers) this.offers.value = changes.offers;
      if (changes.shares) this.shares.value = changes.shares;
      if (changes.items) this.items.value = changes.items;
      if (changes.notices) this.notices.value = changes.notices;
      this.seq.value = seq;
    });
  }
}

function newest<T>(list: readonly T[], limit: number): readonly T[] {
  return list.length > limit ? list.slice(list.length - limit) : list;
}
