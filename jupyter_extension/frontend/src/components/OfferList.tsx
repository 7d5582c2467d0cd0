import type { PanelModel } from "../models/panel.ts";
import { sizeText } from "../models/units.ts";
import type { OfferState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { Icon } from "./Icon.tsx";
import { Preview } from "./Preview.tsx";
import { Section } from "./Section.tsx";

/** What waits for accept or decline. */
export function OfferList({ model, offers }: { readonly model: PanelModel; readonly offers: readonly OfferState[] }) {
  if (offers.length === 0) return null;
  return (
    <Section title={text.offers}>
      <ul class="p2pnb-list">
        {offers.map((offer) => (
          <OfferRow key={offer.id} model={model} offer={offer} />
        ))}
      </ul>
    </Section>
  );
}

function OfferRow({ model, offer }: { readonly model: PanelModel; readonly offer: OfferState }) {
  return (
    <li class="p2pnb-item p2pnb-offer">
      <Icon name={offer.kind === "object" ? "table" : offer.kind} />
      <span class="p2pnb-item-main">
        <bdi class="p2pnb-name p2pnb-clip">{offer.name}</bdi>
        <span class="p2pnb-hint">
          <bdi>{headline(offer)}</bdi> · <bdi>{offer.type}</bdi> · {sizeText(offer.size_bytes)}
        </span>
        <Preview name={offer.name} preview={offer.preview} />
      </span>
      <span class="p2pnb-row p2pnb-answers">
        <button
          type="button"
          class="p2pnb-button p2pnb-primary"
          onClick={() => void model.run("accept", { offer: offer.id })}
        >
          {text.accept}
        </button>
        <button type="button" class="p2pnb-button" onClick={() => void model.run("decline", { offer: offer.id })}>
          {text.decline}
        </button>
      </span>
    </li>
  );
}

function headline(offer: OfferState): string {
  if (offer.kind === "object") return text.offerObject(offer.sender);
  return offer.kind === "file" ? text.offerFile(offer.sender) : text.offerFolder(offer.sender, offer.count);
}
