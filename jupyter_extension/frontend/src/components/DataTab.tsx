import type { PanelModel } from "../models/panel.ts";
import { clockText, sizeText } from "../models/units.ts";
import type { ItemState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { CopyButton } from "./CopyButton.tsx";
import { Icon } from "./Icon.tsx";
import { OfferList } from "./OfferList.tsx";
import { Preview } from "./Preview.tsx";
import { Section } from "./Section.tsx";
import { ShareList } from "./ShareList.tsx";
import { TransferRow } from "./TransferRow.tsx";

export function DataTab({ model }: { readonly model: PanelModel }) {
  const { room } = model;
  const offers = room.offers.value.filter((offer) => offer.kind === "object");
  const objects = room.items.value.filter((item) => item.kind === "object");
  const transfers = room.transfers.value.filter(
    (transfer) => transfer.kind === "object" && (transfer.direction === "out" || transfer.state !== "done"),
  );
  return (
    <>
      <OfferList model={model} offers={offers} />
      <ShareList model={model} />
      <Section title={text.objects}>
        {objects.length === 0 ? (
          <p class="p2pnb-empty">{text.objectsNone}</p>
        ) : (
          <ul class="p2pnb-list">
            {objects.toReversed().map((item, index, newestFirst) => (
              <ObjectRow
                key={item.key}
                item={item}
                expression={room.room.value?.expression ?? ""}
                newest={newestFirst.findIndex((other) => other.name === item.name) === index}
              />
            ))}
          </ul>
        )}
      </Section>
      {transfers.length > 0 && (
        <Section title={text.sent}>
          <ul class="p2pnb-list">
            {transfers.toReversed().map((transfer) => (
              <TransferRow key={transfer.id} model={model} transfer={transfer} />
            ))}
          </ul>
        </Section>
      )}
      {room.open.value && transfers.length === 0 && <p class="p2pnb-hint">{text.objectsHint}</p>}
    </>
  );
}

interface ObjectRowProps {
  readonly item: ItemState;
  readonly expression: string;
  /** No other object of this name came later: its name still means it. */
  readonly newest: boolean;
}

function ObjectRow({ item, expression, newest }: ObjectRowProps) {
  const code = expression + item.code;
  return (
    <li class="p2pnb-item p2pnb-object">
      <Icon name="table" />
      <span class="p2pnb-item-main">
        <span class="p2pnb-item-title">
          <bdi class="p2pnb-name p2pnb-clip">{item.name}</bdi>
          <span class="p2pnb-badge">
            <bdi>{item.type}</bdi>
          </span>
        </span>
        <span class="p2pnb-hint">
          {sizeText(item.size_bytes)} · <bdi>{text.from(item.sender)}</bdi> · {clockText(item.time)}
        </span>
        <Preview name={item.name} preview={item.preview} />
        {newest ? (
          <span class="p2pnb-row p2pnb-code">
            <code class="p2pnb-clip" dir="ltr">
              {code}
            </code>
            <CopyButton value={code} what={text.fetchLine} compact />
          </span>
        ) : (
          <span class="p2pnb-hint">{text.replaced}</span>
        )}
      </span>
    </li>
  );
}
