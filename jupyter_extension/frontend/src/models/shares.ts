/** Fetching what others share, whole or in part: what was chosen of each, and which transfer brings it. */
import { type ReadonlySignal, computed, effect, signal } from "@preact/signals";
import { MAX_PART_COLUMNS, MAX_SHARES, type Rows, type ShareState, type TransferState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import type { CommandQueue } from "./commands.ts";
import type { RoomModel } from "./room.ts";

/** How one share is being fetched. */
export class FetchModel {
  /** The form for a part is on screen. */
  readonly open = signal(false);
  /** Names of columns; none is all. */
  readonly columns = signal<ReadonlySet<string>>(new Set());
  /** As typed. */
  readonly first = signal("");
  readonly end = signal("");
  readonly problem = signal("");
  /** The transfer that was asked for last; null before. */
  readonly transfer = signal<string | null>(null);
  /** It was asked for, and there is no answer yet. */
  readonly asking = signal(false);

  toggle(column: string): void {
    const next = new Set(this.columns.value);
    if (!next.delete(column)) next.add(column);
    this.columns.value = next;
  }
}

export class SharesModel {
  readonly #commands: CommandQueue;
  readonly #room: RoomModel;
  readonly #fetches = new Map<string, FetchModel>();
  readonly #stop: () => void;
  /** There may be shares beyond those that are shown. */
  readonly more: ReadonlySignal<boolean>;

  constructor(commands: CommandQueue, room: RoomModel) {
    this.#commands = commands;
    this.#room = room;
    this.more = computed(() => room.shares.value.length >= MAX_SHARES);
    this.#stop = effect(() => this.#forget());
  }

  dispose(): void {
    this.#stop();
  }

  of(share: ShareState): FetchModel {
    const key = identity(share);
    const known = this.#fetches.get(key) ?? new FetchModel();
    this.#fetches.set(key, known);
    return known;
  }

  /** The transfer that brings it, or brought it. */
  transfer(share: ShareState): TransferState | undefined {
    const id = this.of(share).transfer.value;
    return id === null ? undefined : this.#room.transfers.value.find((transfer) => transfer.id === id);
  }

  fetchAll(share: ShareState): Promise<void> {
    return this.#fetch(share, null, null);
  }

  /** Fetch what the form says, if it says something that can be had. */
  async fetchPart(share: ShareState): Promise<void> {
    const fetch = this.of(share);
    const rows = rowsOf(fetch.first.value, fetch.end.value);
    if (rows === undefined) {
      fetch.problem.value = text.rowsWrong;
      return;
    }
    const columns = choices(share)
      .offered.map(({ name }) => name)
      .filter((name) => fetch.columns.value.has(name));
    await this.#fetch(share, columns.length === 0 ? null : columns, rows);
  }

  async #fetch(share: ShareState, columns: readonly string[] | null, rows: Rows | null): Promise<void> {
    const fetch = this.of(share);
    if (fetch.asking.value) return;
    fetch.problem.value = "";
    fetch.asking.value = true;
    try {
      const args = { share: share.key, owner: share.owner, columns, rows };
      fetch.transfer.value = (await this.#commands.send("fetch_share", args)).transfer;
    } catch (error) {
      fetch.problem.value = (error as Error).message;
    } finally {
      fetch.asking.value = false;
    }
  }

  /** What is not shared any more needs no form. */
  #forget(): void {
    const here = new Set(this.#room.shares.value.map(identity));
    for (const key of this.#fetches.keys()) if (!here.has(key)) this.#fetches.delete(key);
  }
}

const identity = (share: ShareState): string => `${share.owner}\n${share.key}`;

export interface Choices {
  /** A preview shortens long names, and the owner knows no column that is called so. */
  readonly offered: readonly { readonly name: string; readonly cut: boolean }[];
  /** The table may have columns beyond these. */
  readonly more: boolean;
}

/** The columns that can be chosen in the panel. */
export function choices({ columns }: ShareState): Choices {
  const offered = [...new Set(columns)].map((name) => ({ name, cut: name.endsWith("…") }));
  return { offered, more: columns.length >= MAX_PART_COLUMNS };
}

/** Rows as they were typed; null is all, undefined what makes no sense. */
export function rowsOf(first: string, end: string): Rows | null | undefined {
  if (first.trim() === "" && end.trim() === "") return null;
  const from = first.trim() === "" ? 0 : whole(first);
  const to = end.trim() === "" ? null : whole(end);
  if (from === undefined || to === undefined || (to !== null && to <= from)) return undefined;
  return [from, to];
}

function whole(typed: string): number | undefined {
  const number = Number(typed);
  return /^\s*\d+\s*$/.test(typed) && Number.isSafeInteger(number) ? number : undefined;
}
