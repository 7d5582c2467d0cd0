import { useSignal } from "@preact/signals";
import { useId } from "preact/hooks";
import type { RoomModel } from "../models/room.ts";
import type { InviteState } from "../ports/protocol.ts";
import { text } from "../text.ts";
import { CopyButton } from "./CopyButton.tsx";
import { Notice } from "./Notice.tsx";
import { QrCode } from "./QrCode.tsx";

/** Code, link and QR. Open while one is alone; later a click away, because it is the key to the room. */
export function InviteCard({ room }: { readonly room: RoomModel }) {
  const id = useId();
  const chosen = useSignal<boolean | null>(null);
  const invite = room.invite.value;
  if (invite === null) return null;
  const shown = chosen.value ?? room.present.value.length === 0;
  return (
    <section class="p2pnb-section" aria-labelledby={`${id}-title`}>
      <div class="p2pnb-section-head">
        <h3 id={`${id}-title`}>{text.invite}</h3>
        <button
          type="button"
          class="p2pnb-button p2pnb-quiet"
          aria-expanded={shown}
          aria-controls={`${id}-body`}
          onClick={() => (chosen.value = !shown)}
        >
          {shown ? text.inviteHide : text.inviteShow}
        </button>
      </div>
      <div id={`${id}-body`} hidden={!shown}>
        {shown && <Secrets invite={invite} />}
      </div>
    </section>
  );
}

function Secrets({ invite }: { readonly invite: InviteState }) {
  return (
    <div class="p2pnb-invite">
      {/* no <dl>: JupyterLab lays out those in outputs */}
      <div class="p2pnb-secrets">
        <span class="p2pnb-label">{text.code}</span>
        <div class="p2pnb-row">
          <code class="p2pnb-secret">{invite.code}</code>
          <CopyButton value={invite.code} what={text.code} />
        </div>
        <span class="p2pnb-label">{text.link}</span>
        <div class="p2pnb-row">
          <code class="p2pnb-secret">{invite.link}</code>
          <CopyButton value={invite.link} what={text.link} />
        </div>
        <p class="p2pnb-hint p2pnb-wide">{text.secretHint}</p>
        {invite.local_only && (
          <div class="p2pnb-wide">
            <Notice level="warning">{text.localOnly}</Notice>
          </div>
        )}
      </div>
      {invite.qr.length > 0 && (
        <figure class="p2pnb-qr-figure">
          <QrCode rows={invite.qr} />
          {!invite.local_only && <figcaption class="p2pnb-hint">{text.qrHint}</figcaption>}
        </figure>
      )}
    </div>
  );
}
