import type { PanelModel } from "../models/panel.ts";
import type { UploadModel } from "../models/uploads.ts";
import { rateText, sizeText, spanText } from "../models/units.ts";
import type { TransferPartState, TransferState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";
import { ProgressBar } from "./ProgressBar.tsx";

export function TransferRow({ model, transfer }: { readonly model: PanelModel; readonly transfer: TransferState }) {
  const { name, state, direction, parts } = transfer;
  const names = parts.map((part) => part.name).join(", ");
  return (
    <li class={`p2pnb-item p2pnb-transfer p2pnb-transfer-${state}`}>
      <Icon name={direction === "out" ? "up" : "down"} />
      <span class="p2pnb-item-main">
        <span class="p2pnb-item-title">
          <bdi class="p2pnb-name p2pnb-clip">{name}</bdi>
          <span class="p2pnb-hint p2pnb-clip">
            <bdi>{direction === "out" ? text.toNames(names) : text.from(names)}</bdi>
          </span>
        </span>
        {isGoing(transfer) && <ProgressBar name={name} value={transfer.progress} paused={state === "paused"} />}
        <span class="p2pnb-hint p2pnb-facts">
          <bdi>{facts(transfer)}</bdi>
        </span>
        {transfer.error !== "" && (
          <span class="p2pnb-failed" dir="auto">
            {transfer.error}
          </span>
        )}
        {parts.length > 1 && <Parts parts={parts} />}
      </span>
      <Actions model={model} transfer={transfer} />
    </li>
  );
}

/** It has not ended. */
export function isGoing({ state }: TransferState): boolean {
  return state === "moving" || state === "offered" || state === "paused";
}

function Actions({ model, transfer }: { readonly model: PanelModel; readonly transfer: TransferState }) {
  const { id, name, paused_here, retry } = transfer;
  if (retry) {
    return (
      <span class="p2pnb-row p2pnb-answers">
        <button
          type="button"
          class="p2pnb-button"
          aria-label={text.tryAgainOf(name)}
          title={text.tryAgainHint}
          onClick={() => void model.run("retry", { transfer: id })}
        >
          <Icon name="again" />
          {text.tryAgain}
        </button>
      </span>
    );
  }
  if (!isGoing(transfer)) return null;
  return (
    <span class="p2pnb-row p2pnb-steer">
      <button
        type="button"
        class="p2pnb-button p2pnb-quiet p2pnb-compact"
        aria-label={paused_here ? text.resumeOf(name) : text.pauseOf(name)}
        title={paused_here ? text.resume : text.pause}
        onClick={() => void model.run(paused_here ? "resume" : "pause", { transfer: id })}
      >
        <Icon name={paused_here ? "resume" : "pause"} />
      </button>
      <button
        type="button"
        class="p2pnb-button p2pnb-quiet p2pnb-compact"
        aria-label={text.cancelOf(name)}
        title={text.cancel}
        onClick={() => void model.run("cancel", { transfer: id })}
      >
        <Icon name="cross" />
      </button>
    </span>
  );
}

function facts(transfer: TransferState): string {
  const { state, size_bytes, progress, rate, eta, parts } = transfer;
  const here = Math.max(0, ...parts.map((part) => part.resumed_bytes));
  const resumed = here > 0 ? text.resumed(sizeText(here)) : "";
  const moved = `${sizeText(size_bytes * progress)} / ${sizeText(size_bytes)}`;
  const shown =
    state === "moving"
      ? [moved, rate > 0 ? rateText(rate) : "", eta === null ? "" : text.left(spanText(eta)), resumed]
      : state === "paused"
        ? [moved, text.pausedBy(pausers(parts)), resumed]
        : [sizeText(size_bytes), text.transferState[state], resumed];
  return shown.filter(Boolean).join(" · ");
}

/** Who would have to resume it. */
function pausers(parts: readonly TransferPartState[]): string[] {
  const others = parts.filter((part) => part.paused_there).map((part) => part.name);
  return parts.some((part) => part.paused_here) ? [text.you, ...others] : others;
}

function Parts({ parts }: { readonly parts: readonly TransferPartState[] }) {
  return (
    <ul class="p2pnb-parts">
      {parts.map((part) => (
        <li key={part.name} class={`p2pnb-transfer-${part.state}`} title={part.error}>
          <bdi>{part.name}</bdi> <span class="p2pnb-hint">{partText(part)}</span>
        </li>
      ))}
    </ul>
  );
}

function partText(part: TransferPartState): string {
  const share = `${Math.floor(part.progress * 100)} %`;
  if (part.state === "moving") return share;
  return part.state === "paused" ? `${share}, ${text.pausedBy(pausers([part]))}` : text.transferState[part.state];
}

/** A file on its way from this browser to the kernel; after that it is a transfer. */
export function UploadRow({ model, upload }: { readonly model: PanelModel; readonly upload: UploadModel }) {
  const state = upload.state.value;
  const sent = upload.sent_bytes.value;
  const waits = model.busy.value ? text.busy : `${sizeText(sent)} / ${sizeText(upload.size_bytes)} ${text.toKernel}`;
  return (
    <li class="p2pnb-item p2pnb-transfer">
      <Icon name={upload.kind} />
      <span class="p2pnb-item-main">
        <bdi class="p2pnb-name p2pnb-clip">{upload.name}</bdi>
        {state === "moving" && <ProgressBar name={upload.name} value={sent / Math.max(1, upload.size_bytes)} />}
        {state === "failed" ? (
          <span class="p2pnb-failed" role="alert">
            {text.uploadFailed(upload.error.value)}
          </span>
        ) : (
          <span class="p2pnb-hint">{state === "waiting" ? text.uploadWaiting : waits}</span>
        )}
      </span>
      <button
        type="button"
        class="p2pnb-button p2pnb-quiet p2pnb-compact"
        aria-label={text.cancelOf(upload.name)}
        title={text.cancel}
        onClick={() => model.uploads.cancel(upload)}
      >
        <Icon name="cross" />
      </button>
    </li>
  );
}
