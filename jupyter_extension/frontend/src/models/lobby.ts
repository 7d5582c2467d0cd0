/** Before there is a room: creating one, or joining with an invite. */
import { signal } from "@preact/signals";
import { text } from "../text.ts";
import type { CommandQueue } from "./commands.ts";

export type LobbyAction = "create" | "join";

export class LobbyModel {
  readonly name = signal("");
  readonly invite = signal("");
  /** What is under way. */
  readonly doing = signal<LobbyAction | null>(null);
  readonly failed = signal<{ readonly action: LobbyAction; readonly message: string } | null>(null);
  readonly #commands: CommandQueue;

  constructor(commands: CommandQueue) {
    this.#commands = commands;
  }

  create(): Promise<void> {
    return this.#do("create", () => this.#commands.send("create", { name: this.name.value.trim() }));
  }

  async join(): Promise<void> {
    const invite = this.invite.value.trim();
    if (invite === "") {
      this.failed.value = { action: "join", message: text.inviteMissing };
      return;
    }
    await this.#do("join", () => this.#commands.send("join", { name: this.name.value.trim(), invite }));
    if (this.failed.value === null) this.invite.value = ""; // a secret that has done its work
  }

  async #do(action: LobbyAction, command: () => Promise<unknown>): Promise<void> {
    if (this.doing.value !== null) return;
    this.failed.value = null;
    this.doing.value = action;
    try {
      await command();
    } catch (error) {
      this.failed.value = { action, message: (error as Error).message };
    } finally {
      this.doing.value = null;
    }
  }
}
