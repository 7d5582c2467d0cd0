import type { PanelModel } from "../models/panel.ts";
import { clockText, sizeText } from "../models/units.ts";
import type { ShareState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { ConfirmButton } from "./ConfirmButton.tsx";
import { CopyButton } from "./CopyButton.tsx";
import { Icon } from "./Icon.tsx";
import { PartForm } from "./PartForm.tsx";
import { Preview } from "./Preview.tsx";
import { Section } from "./Section.tsx";
import { isGoing } from "./TransferRow.tsx";

/** What is published in the room, to be fetched by whoever wants it. */
export function ShareList({ model }: { readonly model: PanelModel }) {
  const { room } = model;
  const shares = room.shares.value;
  if (!room.open.value) return null;
  return (
    <Section title={text.shared}>
      {shares.length === 0 ? (
        <p class="p2pnb-empty">{text.sharedNone}</p>
      ) : (
        <ul class="p2pnb-list p2pnb-shares">
          {shares.map((share) => (
            <ShareRow key={`${share.owner} ${share.key}`} model={model} share={share} />
          ))}
        </ul>
      )}
      {model.shares.more.value && <p class="p2pnb-hint">{text.sharedMore(shares.length)}</p>}
    </Section>
  );
}

interface ShareProps {
  readonly model: PanelModel;
  readonly share: ShareState;
}

function ShareRow({ model, share }: ShareProps) {
  return (
    <li class="p2pnb-item p2pnb-share">
      <Icon name="share" />
      <span class="p2pnb-item-main">
        <span class="p2pnb-item-title">
          <bdi class="p2pnb-name p2pnb-clip">{share.name}</bdi>
          <span class="p2pnb-badge">
            <bdi>{share.type}</bdi>
          </span>
        </span>
        <span class="p2pnb-hint">
          {sizeText(share.size_bytes)} · <bdi>{share.mine ? text.sharedByYou : text.sharedBy(share.owner)}</bdi> ·{" "}
          {clockText(share.time)} · <span class={share.newer ? "p2pnb-newer" : undefined}>{text.version(share.version, share.newer)}</span>
          {share.holders.length > 0 && (
            <>
              {" · "}
              <span title={text.holdersAre(share.holders.join(", "))}>{text.holders(share.holders.length)}</span>
            </>
          )}
        </span>
        <Preview name={share.name} preview={share.preview} />
        {!share.mine && <Fetched model={model} share={share} />}
      </span>
      <span class="p2pnb-row p2pnb-answers">
        {share.mine ? (
          <ConfirmButton
            label={text.unshare}
            title={text.unshareOf(share.name)}
            ask={text.unshareAsk}
            yes={text.unshareYes}
            no={text.unshareNo}
            onConfirm={() => void model.run("unshare", { share: share.key })}
          />
        ) : (
          <FetchButtons model={model} share={share} />
        )}
      </span>
      {!share.mine && model.shares.of(share).open.value && <PartForm model={model} share={share} />}
    </li>
  );
}

function FetchButtons({ model, share }: ShareProps) {
  const fetch = model.shares.of(share);
  const transfer = model.shares.transfer(share);
  const going = fetch.asking.value || (transfer !== undefined && isGoing(transfer));
  const code = (model.room.room.value?.expression ?? "") + share.code;
  return (
    <>
      <button
        type="button"
        class="p2pnb-button"
        aria-label={going ? undefined : text.fetchOf(share.name)}
        title={text.fetchGoes(code)}
        aria-disabled={going}
        onClick={() => !going && void model.shares.fetchAll(share)}
      >
        {going ? text.fetching : text.fetch}
      </button>
      {share.sliceable && (
        <button
          type="button"
          class="p2pnb-button"
          aria-label={text.partOf(share.name)}
          aria-expanded={fetch.open.value}
          onClick={() => (fetch.open.value = !fetch.open.value)}
        >
          {text.part}
        </button>
      )}
    </>
  );
}

/** Where what was asked for arrives, or why it does not. */
function Fetched({ model, share }: ShareProps) {
  const { problem } = model.shares.of(share);
  const transfer = model.shares.transfer(share);
  const code = (model.room.room.value?.expression ?? "") + share.code;
  return (
    <>
      {problem.value !== "" && (
        <span class="p2pnb-failed" role="alert" dir="auto">
          {problem.value}
        </span>
      )}
      {transfer !== undefined && (isGoing(transfer) || transfer.state === "done") && (
        <span class="p2pnb-row p2pnb-landing">
          <span class="p2pnb-hint" role="status">
            {transfer.state === "done" ? text.fetched : text.comesInto}
          </span>
          <span class="p2pnb-row p2pnb-code">
            <code class="p2pnb-clip" dir="ltr">
              {code}
            </code>
            <CopyButton value={code} what={text.fetchLine} compact />
          </span>
        </span>
      )}
    </>
  );
}
