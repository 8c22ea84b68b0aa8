// A tree of folders, as the ARIA practices describe it: one stop of the tab key, arrows within.

import { h, unique } from "./dom.js";

/** Children by parent; a folder whose parent is not shown stands at the top, as does one of a circle. */
const arrange = (rows) => {
  const known = new Map(rows.map((row) => [row.id, row]));
  const top = [];
  const below = new Map();
  for (const row of rows) {
    let above = known.get(row.parent_id);
    for (let n = 0; above && n <= rows.length; n += 1) above = above.id === row.id ? null : known.get(above.parent_id);
    const parent = above === null ? undefined : known.get(row.parent_id);
    if (parent && parent !== row) below.set(parent.id, [...(below.get(parent.id) ?? []), row]);
    else top.push(row);
  }
  return { top, below, known };
};

/** `rows`: {id, parent_id, name}; `choose(row)` hears what is chosen; `selected`: the id that is chosen already. */
export const tree = ({ label, rows, selected, choose }) => {
  const { top, below, known } = arrange(rows);
  const open = new Set(top.length <= 3 ? top.map((row) => row.id) : []);
  for (let row = known.get(selected), n = 0; row && n < rows.length; row = known.get(row.parent_id), n += 1) open.add(row.parent_id);
  let chosen = known.has(selected) ? selected : null;
  const items = new Map();

  const item = (row, level) => {
    const children = below.get(row.id);
    const name = unique("folder");
    const li = h("li", { role: "treeitem", "aria-level": level, "aria-labelledby": name, "aria-selected": row.id === chosen, tabindex: -1,
      "aria-expanded": children ? String(open.has(row.id)) : null },
    h("div", { class: "row" }, h("span", { class: "caret", "aria-hidden": "true" }, children ? "▸" : ""), h("span", { id: name }, row.name)),
    children && h("ul", { role: "group" }, children.map((child) => item(child, level + 1))));
    li.dataset.folder = row.id;
    items.set(row.id, li);
    return li;
  };
  const root = h("ul", { role: "tree", class: "tree", "aria-label": label }, top.map((row) => item(row, 1)));

  const shown = () => [...root.querySelectorAll("[role=treeitem]")].filter((li) => !li.parentElement.closest("[aria-expanded=false]"));
  const stop = (li) => {
    for (const other of items.values()) other.tabIndex = other === li ? 0 : -1;
  };
  const go = (li) => {
    if (!li) return;
    stop(li);
    li.focus();
  };
  const unfold = (li, on) => li.hasAttribute("aria-expanded") && li.setAttribute("aria-expanded", String(on));
  const select = (li) => {
    chosen = li.dataset.folder;
    for (const other of items.values()) other.setAttribute("aria-selected", String(other === li));
    choose(known.get(chosen));
  };

  let typed = "";
  let typedAt = 0;
  const find = (letter, from) => {
    const now = performance.now();
    typed = now - typedAt > 700 ? letter : typed + letter;
    typedAt = now;
    const all = shown();
    const at = all.indexOf(from);
    // One letter goes on to the next of them; more of them may still fit where we are.
    const start = typed.length > 1 ? at : at + 1;
    const turned = [...all.slice(start), ...all.slice(0, start)];
    return turned.find((li) => known.get(li.dataset.folder).name.toLocaleLowerCase().startsWith(typed.toLocaleLowerCase()));
  };

  root.addEventListener("keydown", (event) => {
    const li = event.target.closest("[role=treeitem]");
    if (!li || event.ctrlKey || event.altKey || event.metaKey) return;
    const all = shown();
    const at = all.indexOf(li);
    const expanded = li.getAttribute("aria-expanded");
    if (event.key === "ArrowDown") go(all[at + 1]);
    else if (event.key === "ArrowUp") go(all[at - 1]);
    else if (event.key === "Home") go(all[0]);
    else if (event.key === "End") go(all.at(-1));
    else if (event.key === "ArrowRight" && expanded === "false") unfold(li, true);
    else if (event.key === "ArrowRight" && expanded === "true") go(all[at + 1]);
    else if (event.key === "ArrowLeft" && expanded === "true") unfold(li, false);
    else if (event.key === "ArrowLeft") go(li.parentElement.closest("[role=treeitem]"));
    else if (event.key === "Enter" || event.key === " ") select(li);
    else if (event.key.length === 1) go(find(event.key, li));
    else return;
    event.preventDefault();
  });
  root.addEventListener("click", (event) => {
    const li = event.target.closest("[role=treeitem]");
    if (!li) return;
    go(li);
    if (event.target.closest(".caret") && li.hasAttribute("aria-expanded")) unfold(li, li.getAttribute("aria-expanded") === "false");
    else select(li);
  });
  stop(items.get(chosen) ?? root.querySelector("[role=treeitem]"));
  return root;
};
