import { useEffect, useId, useMemo } from "preact/hooks";
import type { PanelModel } from "../models/panel.ts";
import { type Tab, TabsModel } from "../models/tabs.ts";
import { text } from "../text.ts";
import { ChatTab } from "./ChatTab.tsx";
import { DataTab } from "./DataTab.tsx";
import { FilesTab } from "./FilesTab.tsx";
import { Header } from "./Header.tsx";
import { Notice } from "./Notice.tsx";
import { RoomTab } from "./RoomTab.tsx";
import { TabBar } from "./TabBar.tsx";
import { Waiting } from "./Waiting.tsx";

export type View = "all" | Tab;

const PARTS = { room: RoomTab, chat: ChatTab, files: FilesTab, data: DataTab } as const;

/** One view: all tabs, or a single part of the room. */
export function Panel({ model, view = "all" }: { readonly model: PanelModel; readonly view?: View }) {
  const id = useId();
  const tabs = useMemo(() => new TabsModel(model.room, view === "all" ? "room" : view), [model, view]);
  useEffect(() => () => tabs.dispose(), [tabs]);
  // Without a room there is one thing to do, whatever part was asked for.
  const alone = model.room.room.value === null;
  const part = alone ? "room" : tabs.active.value;
  const Part = PARTS[part];
  const tabbed = view === "all" && !alone;
  return (
    <section class={`p2pnb p2pnb-view-${view}`} aria-label={text.panel} data-lm-suppress-shortcuts="true">
      <Header model={model} />
      {tabbed && <TabBar tabs={tabs} id={id} />}
      <Notices model={model} />
      {model.ready.value ? (
        <div
          class={`p2pnb-body p2pnb-body-${part}`}
          {...(tabbed ? { id: `${id}-panel`, role: "tabpanel", "aria-labelledby": `${id}-tab-${part}` } : {})}
        >
          <Part key={part} model={model} />
        </div>
      ) : (
        <Waiting />
      )}
      {tabbed && <Announcer model={model} tabs={tabs} />}
    </section>
  );
}

function Notices({ model }: { readonly model: PanelModel }) {
  return (
    <>
      {model.busy.value && (
        <Notice level="info" icon="clock">
          {text.busy}
        </Notice>
      )}
      {model.problem.value !== "" && (
        <Notice level="error" onDismiss={() => (model.problem.value = "")}>
          {model.problem.value}
        </Notice>
      )}
      {model.notices.value.map((notice) => (
        <Notice key={notice.id} level="warning" onDismiss={() => model.dismiss(notice.id)}>
          {notice.text}
        </Notice>
      ))}
    </>
  );
}

/** Says aloud that somebody wrote while the log, which would say it, is not on screen. */
function Announcer({ model, tabs }: { readonly model: PanelModel; readonly tabs: TabsModel }) {
  const last = model.room.messages.value.at(-1);
  const news = tabs.unread.chat.value > 0 && last !== undefined && !last.mine;
  return (
    <p class="p2pnb-sr" aria-live="polite">
      {news ? text.said(last.sender) : ""}
    </p>
  );
}
