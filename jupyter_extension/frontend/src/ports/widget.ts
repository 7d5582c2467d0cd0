/** The port through an anywidget model: custom messages over the widget's comm. */
import type { Port } from "./port.ts";
import type { Incoming, Outgoing } from "./protocol.ts";

/** The part of anywidget's model that is used here. */
export interface WidgetModel {
  get(name: string): unknown;
  send(content: unknown, callbacks?: unknown, buffers?: readonly ArrayBuffer[]): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
}

export class WidgetPort implements Port {
  readonly #model: WidgetModel;

  constructor(model: WidgetModel) {
    this.#model = model;
  }

  send(message: Outgoing, buffers: readonly ArrayBuffer[] = []): void {
    this.#model.send(message, undefined, buffers);
  }

  listen(listener: (message: Incoming) => void): () => void {
    const receive = (content: unknown): void => {
      if (isMessage(content)) listener(content);
    };
    this.#model.on("msg:custom", receive);
    return () => this.#model.off("msg:custom", receive);
  }

  location(): { origin: string; base_url: string } | null {
    const base_url = jupyterBaseUrl();
    return base_url === null ? null : { origin: window.location.origin, base_url };
  }
}

/** anywidget's own messages share the channel. */
function isMessage(content: unknown): content is Incoming {
  const kind = (content as { kind?: unknown } | null)?.kind;
  return kind === "snapshot" || kind === "patch" || kind === "ack" || kind === "started";
}

/** JupyterLab and Notebook 7 put their configuration into the page; VS Code and Colab don't. */
function jupyterBaseUrl(): string | null {
  const element = document.getElementById("jupyter-config-data");
  if (element === null) return null;
  try {
    const config = JSON.parse(element.textContent ?? "") as { baseUrl?: unknown };
    return typeof config.baseUrl === "string" ? new URL(config.baseUrl, window.location.href).pathname : null;
  } catch {
    return null;
  }
}
