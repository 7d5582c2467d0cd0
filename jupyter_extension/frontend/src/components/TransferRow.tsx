import type { PanelModel } from "../models/panel.ts";
import type { UploadModel } from "../models/uploads.ts";
import { rateText, sizeText, spanText } from "../models/units.ts";
import type { TransferPartState, TransferState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";
import { ProgressBar } from "./ProgressBar.tsx";

export function TransferRow({ model, transfer }: { readonly model: PanelModel; readonly transfer: TransferState }) {
  const { id, name, state, direction, parts } = transfer;
  const going = state === "moving" || state === "offered";
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
        {going && <ProgressBar name={name} value={transfer.progress} />}
        <span class="p2pnb-hint">{facts(transfer)}</span>
        {transfer.error !== "" && (
          <span class="p2pnb-failed" dir="auto">
            {transfer.error}
          </span>
        )}
        {parts.length > 1 && <Parts parts={parts} />}
      </span>
      {going && (
        <button
          type="button"
          class="p2pnb-button p2pnb-quiet p2pnb-compact"
          aria-label={text.cancelOf(name)}
          title={text.cancel}
          onClick={() => void model.run("cancel", { transfer: id })}
        >
          <Icon name="cross" />
        </button>
      )}
    </li>
  );
}

function facts({ state, size_bytes, progress, rate, eta }: TransferState): string {
  if (state !== "moving") return `${sizeText(size_bytes)} · ${text.transferState[state]}`;
  const moved = `${sizeText(size_bytes * progress)} / ${sizeText(size_bytes)}`;
  return [moved, rate > 0 ? rateText(rate) : "", eta === null ? "" : text.left(spanText(eta))].filter(Boolean).join(" · ");
}

function Parts({ parts }: { readonly parts: readonly TransferPartState[] }) {
  return (
    <ul class="p2pnb-parts">
      {parts.map((part) => (
        <li key={part.name} class={`p2pnb-transfer-${part.state}`} title={part.error}>
          <bdi>{part.name}</bdi>{" "}
          <span class="p2pnb-hint">
            {part.state === "moving" ? `${Math.floor(part.progress * 100)} %` : text.transferState[part.state]}
          </span>
        </li>
      ))}
    </ul>
  );
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
