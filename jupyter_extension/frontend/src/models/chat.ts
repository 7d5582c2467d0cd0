/** Chat: what is being written, to whom, and what is not yet with the peer. */
import { signal } from "@preact/signals";
import type { CommandQueue } from "./commands.ts";

export interface PendingMessage {
  readonly key: number;
  readonly text: string;
  readonly to: string | null;
  /** Empty while it is under way. */
  readonly error: string;
}

export class ChatModel {
  readonly draft = signal("");
  /** Peer id, or null for everybody. */
  readonly recipient = signal<string | null>(null);
  readonly pending = signal<readonly PendingMessage[]>([]);
  readonly #commands: CommandQueue;
  #next = 0;

  constructor(commands: CommandQueue) {
    this.#commands = commands;
  }

  /** Send the draft, if there is anything in it. */
  submit(): void {
    const text = this.draft.value.trim();
    if (text === "") return;
    this.draft.value = "";
    void this.#send({ key: this.#next++, text, to: this.recipient.value, error: "" });
  }

  retry(message: PendingMessage): void {
    void this.#send({ ...message, error: "" });
  }

  discard(message: PendingMessage): void {
    this.pending.value = this.pending.value.filter((other) => other.key !== message.key);
  }

  async #send(message: PendingMessage): Promise<void> {
    this.discard(message);
    this.pending.value = [...this.pending.value, message];
    try {
      await this.#commands.send("chat", { text: message.text, to: message.to === null ? null : [message.to] });
      this.discard(message);
    } catch (error) {
      const failed = { ...message, error: (error as Error).message };
      this.pending.value = this.pending.value.map((other) => (other.key === message.key ? failed : other));
    }
  }
}
