import { useId } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { clockText, sizeText } from "../models/units.ts";
import type { ItemState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { CopyButton } from "./CopyButton.tsx";
import { DropZone } from "./DropZone.tsx";
import { Icon } from "./Icon.tsx";
import { OfferList } from "./OfferList.tsx";
import { Section } from "./Section.tsx";
import { TransferRow, UploadRow } from "./TransferRow.tsx";

export function FilesTab({ model }: { readonly model: PanelModel }) {
  const { room, uploads } = model;
  const offers = room.offers.value.filter((offer) => offer.kind !== "object");
  const transfers = room.transfers.value.filter((transfer) => transfer.kind !== "object");
  const received = room.items.value.filter((item) => item.kind !== "object");
  return (
    <>
      <OfferList model={model} offers={offers} />
      {room.open.value && <DropZone model={model} />}
      {(uploads.uploads.value.length > 0 || transfers.length > 0) && (
        <Section title={text.transfers}>
          <ul class="p2pnb-list">
            {uploads.uploads.value.map((upload) => (
              <UploadRow key={`upload ${upload.id}`} model={model} upload={upload} />
            ))}
            {transfers.toReversed().map((transfer) => (
              <TransferRow key={transfer.id} model={model} transfer={transfer} />
            ))}
          </ul>
        </Section>
      )}
      <Received items={received} folder={room.room.value?.folder ?? ""} />
    </>
  );
}

function Received({ items, folder }: { readonly items: readonly ItemState[]; readonly folder: string }) {
  const id = useId();
  return (
    <section class="p2pnb-section" aria-labelledby={id}>
      <div class="p2pnb-section-head">
        <h3 id={id}>{text.received}</h3>
        {folder !== "" && (
          <span class="p2pnb-hint p2pnb-clip" title={folder}>
            {text.folderIs} <code>{folder}</code>
          </span>
        )}
      </div>
      {items.length === 0 ? (
        <p class="p2pnb-empty">{text.receivedNone}</p>
      ) : (
        <ul class="p2pnb-list">
          {items.toReversed().map((item) => (
            <ReceivedFile key={item.key} item={item} />
          ))}
        </ul>
      )}
    </section>
  );
}

function ReceivedFile({ item }: { readonly item: ItemState }) {
  return (
    <li class="p2pnb-item">
      <Icon name={item.kind === "folder" ? "folder" : "file"} />
      <span class="p2pnb-item-main">
        <bdi class="p2pnb-name p2pnb-clip">{item.name}</bdi>
        <span class="p2pnb-hint">
          {sizeText(item.size_bytes)} · <bdi>{text.from(item.sender)}</bdi> · {clockText(item.time)}
        </span>
        <code class="p2pnb-hint p2pnb-clip" dir="auto" title={item.path}>
          {item.path}
        </code>
      </span>
      <CopyButton value={item.path} what={text.path_} compact />
    </li>
  );
}
