/**
 * The notebook's entry: an anywidget module. Every widget instance gets a model of its own, which its
 * views share and which lives as long as the widget: an upload goes on when an output cell is scrolled
 * away and drawn again.
 */
import { h, render as renderInto } from "preact";
import { Panel, type View } from "./components/Panel.tsx";
import { PanelModel } from "./models/panel.ts";
import { type WidgetModel, WidgetPort } from "./ports/widget.ts";

const VIEWS: ReadonlySet<unknown> = new Set<View>(["all", "room", "chat", "files", "data"]);

export default () => {
  let panel: PanelModel | undefined;

  return {
    initialize({ model }: { model: WidgetModel }): () => void {
      panel = new PanelModel(new WidgetPort(model));
      return () => panel?.dispose();
    },

    render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
      const shared = (panel ??= new PanelModel(new WidgetPort(model)));
      const view = model.get("view");
      renderInto(h(Panel, { model: shared, view: VIEWS.has(view) ? (view as View) : "all" }), el);
      shared.refresh();
      return () => renderInto(null, el);
    },
  };
};
