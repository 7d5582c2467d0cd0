/**
 * What a panel and the peer behind it say to each other; the twin of `p2pnb/panel/protocol.py`.
 *
 * The peer owns the state. It sends a snapshot when asked and numbered patches after that; a panel
 * that misses a number asks for a snapshot again. Every command has an id and is answered by one ack.
 *
 * All strings that come from other people (names, texts, cells, types) are plain text. They reach the
 * page through text nodes only, and never as an attribute that is a URL, a style or a handler.
 */

export type RoomPhase = "connecting" | "open" | "reconnecting" | "closed";
export type PeerPhase = "connecting" | "here" | "away" | "gone";
export type PeerKind = "kernel" | "script" | "browser";
export type PathKind = "relay" | "webrtc" | "tcp";
export type ItemKind = "object" | "file" | "folder";
export type TransferPhase = "offered" | "moving" | "paused" | "done" | "failed" | "cancelled" | "declined";

export interface RoomState {
  readonly id: string;
  /** My own display name. */
  readonly name: string;
  readonly state: RoomPhase;
  /** Too many wrong codes were tried: no newcomers until it is unlocked. */
  readonly locked: boolean;
  readonly hub: string;
  /** Where received files land, as a path on the peer's machine; empty in a browser. */
  readonly folder: string;
  /** The Python expression that is this room in the notebook, e.g. `room`. */
  readonly expression: string;
}

export interface InviteState {
  readonly code: string;
  readonly link: string;
  /** Nobody but this computer can open the link. */
  readonly local_only: boolean;
  /** Rows of "0" and "1", without quiet zone; empty if there is no QR code. */
  readonly qr: readonly string[];
}

export interface PeerState {
  readonly id: string;
  readonly name: string;
  readonly kind: PeerKind;
  readonly state: PeerPhase;
  readonly path: PathKind | null;
  readonly paths: readonly string[];
  /** How many parallel connections stand, by transport. */
  readonly lanes: Readonly<Record<string, number>>;
  /** What is behind the WebRTC paths; empty without any. */
  readonly engine: string;
  /** Seconds. */
  readonly rtt: number | null;
  readonly words: readonly string[];
  readonly verified: boolean;
  readonly owner: boolean;
}

export interface MessageState {
  readonly key: string;
  readonly id: string;
  readonly sender: string;
  readonly text: string;
  /** Seconds since the epoch. */
  readonly time: number;
  readonly mine: boolean;
  readonly private: boolean;
  readonly to: readonly string[];
}

export interface TransferPartState {
  readonly name: string;
  readonly state: TransferPhase;
  readonly progress: number;
  readonly paused_here: boolean;
  readonly paused_there: boolean;
  /** What the receiver had from an earlier try. */
  readonly resumed_bytes: number;
  readonly error: string;
}

export interface TransferState {
  readonly id: string;
  readonly name: string;
  readonly kind: ItemKind;
  readonly direction: "out" | "in";
  readonly size_bytes: number;
  readonly state: TransferPhase;
  /** 0 to 1. */
  readonly progress: number;
  /** Bytes per second. */
  readonly rate: number;
  /** Seconds. */
  readonly eta: number | null;
  /** I paused it (the other side may have, too). */
  readonly paused_here: boolean;
  /** It failed, and its files can be sent again. */
  readonly retry: boolean;
  readonly parts: readonly TransferPartState[];
  readonly error: string;
}

export interface ColumnState {
  readonly name: string;
  readonly type: string;
}

export interface PreviewState {
  readonly summary: string;
  readonly columns: readonly ColumnState[];
  readonly rows: readonly (readonly string[])[];
  readonly text: string;
  /** Columns the sender described beyond those in `columns`. */
  readonly more_columns: number;
}

export interface OfferState {
  readonly id: string;
  readonly sender: string;
  readonly name: string;
  readonly kind: ItemKind;
  readonly type: string;
  readonly size_bytes: number;
  readonly count: number;
  readonly preview: PreviewState;
}

export interface ShareState {
  /** Name in `room.shares`, unique at any moment. */
  readonly key: string;
  readonly name: string;
  readonly owner: string;
  readonly mine: boolean;
  readonly version: number;
  /** An older version was fetched here. */
  readonly newer: boolean;
  readonly type: string;
  readonly size_bytes: number;
  readonly time: number;
  /** Some of its columns and rows can be fetched alone. */
  readonly sliceable: boolean;
  /** Names of those who have all of the newest version. */
  readonly holders: readonly string[];
  readonly preview: PreviewState;
  /** Names of the columns that can be chosen: the first ones, at most MAX_PART_COLUMNS. */
  readonly columns: readonly string[];
  /** The Python that finds what was fetched, to be written behind `RoomState.expression`. */
  readonly code: string;
}

export interface ItemState {
  readonly key: string;
  readonly name: string;
  readonly sender: string;
  readonly time: number;
  readonly size_bytes: number;
  readonly kind: ItemKind;
  readonly type: string;
  readonly preview: PreviewState;
  /** Where a file or folder is on the peer's machine; empty for objects. */
  readonly path: string;
  /** The Python that fetches it, to be written behind `RoomState.expression`. */
  readonly code: string;
}

export interface NoticeState {
  readonly id: number;
  readonly text: string;
}

export interface PanelState {
  readonly room: RoomState | null;
  readonly invite: InviteState | null;
  readonly peers: readonly PeerState[];
  readonly messages: readonly MessageState[];
  readonly transfers: readonly TransferState[];
  readonly offers: readonly OfferState[];
  readonly shares: readonly ShareState[];
  readonly items: readonly ItemState[];
  readonly notices: readonly NoticeState[];
}

export interface Appends {
  readonly messages?: readonly MessageState[];
  readonly items?: readonly ItemState[];
}

/** What both sides keep of a growing list; the oldest entries go first. */
export const MAX_MESSAGES = 500;
export const MAX_ITEMS = 200;
/** What is shown of `room.shares`. */
export const MAX_SHARES = 100;

export interface CommandError {
  /** Name of an exception of `p2pnb.errors`, or "Lost". */
  readonly code: string;
  readonly message: string;
}

export type Incoming =
  | { readonly kind: "snapshot"; readonly seq: number; readonly state: PanelState }
  | {
      readonly kind: "patch";
      readonly seq: number;
      readonly changes: Partial<PanelState>;
      readonly appends?: Appends;
    }
  /** A command that takes its time (create, join, leave) was begun: the peer is not busy, it works on it. */
  | { readonly kind: "started"; readonly id: number }
  | { readonly kind: "ack"; readonly id: number; readonly ok: true; readonly value: unknown }
  | { readonly kind: "ack"; readonly id: number; readonly ok: false; readonly error: CommandError };

/** Peer ids, or null for everybody. */
export type Recipients = readonly string[] | null;

/** Rows [first, end) as Python counts them; null: to the last. */
export type Rows = readonly [first: number, end: number | null];

/** Every command: what it takes and what its ack brings. */
export interface Commands {
  snapshot: { args: object; value: null };
  /** Asks for acks that got lost; `unknown` are ids the peer never saw. */
  sync: { args: { readonly seq: number; readonly ids: readonly number[] }; value: { readonly unknown: number[] } };
  /** The address under which this browser sees the kernel's Jupyter server. */
  location: { args: { readonly origin: string; readonly base_url: string }; value: null };
  create: { args: { readonly name: string }; value: null };
  join: { args: { readonly name: string; readonly invite: string }; value: null };
  leave: { args: object; value: null };
  unlock: { args: object; value: null };
  chat: { args: { readonly text: string; readonly to: Recipients }; value: null };
  accept: { args: { readonly offer: string }; value: null };
  decline: { args: { readonly offer: string }; value: null };
  cancel: { args: { readonly transfer: string }; value: null };
  pause: { args: { readonly transfer: string }; value: null };
  resume: { args: { readonly transfer: string }; value: null };
  /** Sends files again to those who failed to get them. */
  retry: { args: { readonly transfer: string }; value: { readonly transfer: string } };
  /** `owner` is who was on the screen: a key may pass to somebody else's share. Null: all columns, all rows. */
  fetch_share: {
    args: {
      readonly share: string;
      readonly owner: string;
      readonly columns: readonly string[] | null;
      readonly rows: Rows | null;
    };
    value: { readonly transfer: string };
  };
  unshare: { args: { readonly share: string }; value: null };
  verify: { args: { readonly peer: string; readonly value: boolean }; value: null };
  /** Several files are one transfer: a folder if they share their first path component. */
  upload_begin: {
    args: {
      readonly upload: number;
      readonly to: Recipients;
      readonly files: readonly (readonly [path: string, size_bytes: number])[];
    };
    value: null;
  };
  /** Pieces of a file come in order of their offsets; the bytes are the message's one buffer. */
  upload_piece: { args: { readonly upload: number; readonly file: number; readonly offset: number }; value: null };
  upload_end: { args: { readonly upload: number }; value: { readonly transfer: string } };
  upload_abort: { args: { readonly upload: number }; value: null };
}

export type CommandName = keyof Commands;
export type Outgoing = { readonly id: number; readonly cmd: CommandName } & Readonly<Record<string, unknown>>;

export const MAX_PIECE_BYTES = 1024 * 1024;
export const MAX_UPLOAD_FILES = 10_000;
export const MAX_PART_COLUMNS = 50;
