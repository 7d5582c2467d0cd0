/**
 * Commands on their way: ids, answers, and what is known about those without an answer.
 *
 * A kernel that runs a cell may answer only when the cell ends, and an answer may get lost; so a command
 * has no deadline. After `SLOW_MS` the panel says that the kernel is busy; every `SYNC_MS` it asks for
 * answers that should be here by now.
 */
import { type ReadonlySignal, computed, signal } from "@preact/signals";
import type { Port } from "../ports/port.ts";
import type { CommandError, CommandName, Commands, Incoming } from "../ports/protocol.ts";

export const SLOW_MS = 2000;
export const SYNC_MS = 15_000;

/** A command that was refused, or whose answer will never come. */
export class CommandFailed extends Error {
  readonly code: string;

  constructor(error: CommandError) {
    super(error.message);
    this.name = "CommandFailed";
    this.code = error.code;
  }
}

interface Pending {
  readonly name: CommandName;
  readonly sentAt: number;
  readonly timer: ReturnType<typeof setTimeout>;
  readonly resolve: (value: never) => void;
  readonly reject: (error: CommandFailed) => void;
}

/** What is asked in the background is no reason to tell anybody that the kernel is busy. */
const QUIET: ReadonlySet<CommandName> = new Set(["sync", "location"]);

export class CommandQueue {
  readonly #port: Port;
  readonly #pending = new Map<number, Pending>();
  readonly #slow = signal<ReadonlySet<number>>(new Set());
  #next: number;

  /** Whether a command waits longer than a kernel that is free would let it. */
  readonly busy: ReadonlySignal<boolean> = computed(() => this.#slow.value.size > 0);

  constructor(port: Port) {
    this.#port = port;
    // Pages that show the same widget must not take each other's answers for their own. Numbers and not
    // strings: ipykernel keeps the string ids of all messages it ever sent.
    this.#next = Math.floor(Math.random() * 2 ** 28) * 2 ** 24;
  }

  /** Send a command; resolves with the value of its ack, rejects with `CommandFailed`. */
  send<Name extends CommandName>(
    name: Name,
    args: Commands[Name]["args"],
    buffers?: readonly ArrayBuffer[],
  ): Promise<Commands[Name]["value"]> {
    const id = ++this.#next;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => QUIET.has(name) || this.#mark(id, true), SLOW_MS);
      this.#pending.set(id, { name, sentAt: Date.now(), timer, resolve, reject });
      try {
        this.#port.send({ ...args, id, cmd: name }, buffers);
      } catch (error) {
        this.#settle(id)?.reject(new CommandFailed({ code: "Lost", message: String(error) }));
      }
    });
  }

  /** Take what the port brought, if it answers a command. */
  receive(message: Incoming): void {
    if (message.kind === "started") {
      const pending = this.#pending.get(message.id);
      if (pending !== undefined) clearTimeout(pending.timer);
      this.#mark(message.id, false);
    } else if (message.kind === "ack") {
      const pending = this.#settle(message.id);
      if (message.ok) pending?.resolve(message.value as never);
      else pending?.reject(new CommandFailed(message.error));
    }
  }

  /** Ids of commands whose answer should have come. */
  overdue(now = Date.now()): number[] {
    return [...this.#pending]
      .filter(([, pending]) => pending.name !== "sync" && now - pending.sentAt >= SYNC_MS)
      .map(([id]) => id);
  }

  /** Give commands up that the peer never saw. */
  lost(ids: readonly number[], message: string): void {
    for (const id of ids) this.#settle(id)?.reject(new CommandFailed({ code: "Lost", message }));
  }

  dispose(message: string): void {
    this.lost([...this.#pending.keys()], message);
  }

  #settle(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    if (pending === undefined) return undefined;
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    this.#mark(id, false);
    return pending;
  }

  #mark(id: number, slow: boolean): void {
    if (this.#slow.value.has(id) === slow) return;
    const next = new Set(this.#slow.value);
    if (slow) next.add(id);
    else next.delete(id);
    this.#slow.value = next;
  }
}
