import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

export function Section({ title, children }: { readonly title: string; readonly children: ComponentChildren }) {
  const id = useId();
  return (
    <section class="p2pnb-section" aria-labelledby={id}>
      <div class="p2pnb-section-head">
        <h3 id={id}>{title}</h3>
      </div>
      {children}
    </section>
  );
}
