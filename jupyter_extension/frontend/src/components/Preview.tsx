import type { PreviewState } from "../ports/protocol.ts";
import { text } from "../text.ts";

/** What a sender says about an item. Every cell is a text node. */
export function Preview({ name, preview }: { readonly name: string; readonly preview: PreviewState }) {
  const { summary, columns, rows } = preview;
  const table = columns.length > 0 || rows.length > 0;
  return (
    <>
      {summary !== "" && (
        <span class="p2pnb-hint" dir="auto">
          {summary}
        </span>
      )}
      {(table || preview.text !== "") && (
        <details class="p2pnb-preview">
          <summary>{text.preview}</summary>
          {table && <PreviewTable name={name} preview={preview} />}
          {preview.text !== "" && (
            <pre class="p2pnb-preview-text" dir="auto" tabIndex={0}>
              {preview.text}
            </pre>
          )}
        </details>
      )}
    </>
  );
}

function PreviewTable({ name, preview }: { readonly name: string; readonly preview: PreviewState }) {
  return (
    <div class="p2pnb-scroll" tabIndex={0} role="group" aria-label={text.previewOf(name)}>
      <table class="p2pnb-table">
        <thead>
          <tr>
            {preview.columns.map((column, index) => (
              <th key={index} scope="col">
                <bdi>{column.name}</bdi>
                <span class="p2pnb-hint">{column.type}</span>
              </th>
            ))}
            {preview.more_columns > 0 && (
              <th scope="col" class="p2pnb-hint">
                {text.moreColumns(preview.more_columns)}
              </th>
            )}
          </tr>
        </thead>
        <tbody>
          {preview.rows.map((row, index) => (
            <tr key={index}>
              {row.map((cell, column) => (
                <td key={column} dir="auto">
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
