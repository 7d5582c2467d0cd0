import { useId } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { choices } from "../models/shares.ts";
import type { ShareState } from "../ports/protocol.ts";
import { text } from "../text.ts";

/** Some columns, some rows. */
export function PartForm({ model, share }: { readonly model: PanelModel; readonly share: ShareState }) {
  const id = useId();
  const fetch = model.shares.of(share);
  const submit = (event: Event): void => {
    event.preventDefault();
    void model.shares.fetchPart(share);
  };
  return (
    <form class="p2pnb-part" aria-label={text.partOf(share.name)} onSubmit={submit}>
      {share.columns.length > 0 && <Columns model={model} share={share} />}
      <fieldset class="p2pnb-fieldset">
        <legend>
          {text.rows} <span class="p2pnb-hint">{text.rowsHint}</span>
        </legend>
        <span class="p2pnb-rows">
          {(["first", "end"] as const).map((which) => (
            <span key={which} class="p2pnb-row">
              <label for={`${id}-${which}`}>{which === "first" ? text.rowsFrom : text.rowsTo}</label>
              <input
                id={`${id}-${which}`}
                class="p2pnb-input p2pnb-number"
                inputMode="numeric"
                autocomplete="off"
                maxLength={16}
                value={fetch[which].value}
                onInput={(event) => (fetch[which].value = event.currentTarget.value)}
              />
            </span>
          ))}
          <button type="submit" class="p2pnb-button">
            {text.fetchPart}
          </button>
        </span>
      </fieldset>
    </form>
  );
}

function Columns({ model, share }: { readonly model: PanelModel; readonly share: ShareState }) {
  const fetch = model.shares.of(share);
  const { offered, more } = choices(share);
  return (
    <fieldset class="p2pnb-fieldset">
      <legend>
        {text.columns} <span class="p2pnb-hint">{text.columnsHint}</span>
      </legend>
      <span class="p2pnb-ticks">
        {offered.map(({ name, cut }) => (
          <label key={name} class="p2pnb-tick" title={cut ? text.columnTooLong : undefined}>
            <input
              type="checkbox"
              disabled={cut}
              checked={fetch.columns.value.has(name)}
              onChange={() => fetch.toggle(name)}
            />
            <bdi class="p2pnb-clip">{name}</bdi>
          </label>
        ))}
      </span>
      {more && <span class="p2pnb-hint">{text.columnsMore(share.columns.length)}</span>}
    </fieldset>
  );
}
