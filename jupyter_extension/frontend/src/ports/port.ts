/**
 * A port is the way to one peer: the kernel's through a widget's comm, or one in this very page.
 *
 * Only models talk to a port. It carries messages of `protocol.ts` both ways, in order; some of those
 * towards the panel may get lost (a busy Jupyter server drops messages), none is changed.
 */
import type { Incoming, Outgoing, Recipients } from "./protocol.ts";

export interface Port {
  /** Take a message to the peer. Throws if the peer can never be reached again. */
  send(message: Outgoing, buffers?: readonly ArrayBuffer[]): void;

  /** Call `listener` for every message from the peer until the returned function is called. */
  listen(listener: (message: Incoming) => void): () => void;

  /** Where this page's Jupyter server is, as the browser sees it; null where that is unknown. */
  location(): { readonly origin: string; readonly base_url: string } | null;

  /** Ports whose peer lives in this page hand it the files; without this they go in pieces (`models/uploads.ts`). */
  sendFiles?(files: readonly UploadFile[], to: Recipients): Promise<void>;
}

/** One file on its way to the peer. `path` is relative, with "/" between its components. */
export interface UploadFile {
  readonly path: string;
  readonly blob: Blob;
}
