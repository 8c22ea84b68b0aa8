// A tree of folders, as the ARIA practices describe it: one stop of the tab key, arrows within.

import { h } from "./dom.js";

/** Children by parent; a folder whose parent is not shown stands at the top, as does one of a circle. */
const arrange = (rows) => {
  const known = new Map(rows.map((row) => [row.id, row]));
  const above = new Map();
  const top = [];
  const below = new Map();
  for (const row of rows) {
    let up = known.get(row.parent_id);
    for (let n = 0; up && up !== row && n < rows.length; n += 1) up = known.get(up.parent_id);
    // Up there is nobody: the way to the top is no circle.
    if (!up && known.has(row.parent_id)) {
      above.set(row.id, row.parent_id);
      below.set(row.parent_id, [...(below.get(row.parent_id) ?? []), row]);
    } else top.push(row);
  }
  return { top, above, below, known };
};

/** `rows`: {id, parent_id, name}; `choose(row)` hears what is chosen; `selected`: the id that is chosen already. */
export const tree = ({ label, rows, selected, choose }) => {
  const { top, above, below, known } = arrange(rows);
  const open = new Set(top.length <= 3 ? top.map((row) => row.id) : []);
  for (let id = above.get(selected); id !== undefined; id = above.get(id)) open.add(id);
  let chosen = known.has(selected) ? selected : null;
  const items = new Map();

  // One flat list, each with its level and place: the name of an item is its own text alone.
  const item = (row, level, place, all) => {
    const children = below.get(row.id);
    const li = h("li", { role: "treeitem", "aria-level": level, "aria-posinset": place + 1, "aria-setsize": all.length,
      "aria-selected": String(row.id === chosen), "aria-expanded": children ? String(open.has(row.id)) : null, tabindex: -1,
      style: { "--level": level - 1 } },
    h("span", { class: "caret", "aria-hidden": "true" }, children ? "▸" : ""), row.name);
    li.dataset.folder = row.id;
    items.set(row.id, li);
    return [li, (children ?? []).map((child, n) => item(child, level + 1, n, children))];
  };
  const root = h("ul", { role: "tree", class: "tree", "aria-label": label }, top.map((row, n) => item(row, 1, n, top)));

  const parent = (li) => items.get(above.get(li.dataset.folder));
  const fold = () => {
    for (const li of items.values()) {
      let up = parent(li);
      while (up && up.getAttribute("aria-expanded") === "true") up = parent(up);
      li.hidden = Boolean(up);
    }
  };
  const shown = () => [...items.values()].filter((li) => !li.hidden);
  const stop = (li) => {
    for (const other of items.values()) other.tabIndex = other === li ? 0 : -1;
  };
  const go = (li) => {
    if (!li) return;
    stop(li);
    li.focus();
  };
  const unfold = (li, on) => {
    li.setAttribute("aria-expanded", String(on));
    fold();
  };
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
    else if (event.key === "ArrowLeft") go(parent(li));
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
  fold();
  stop(items.get(chosen) ?? root.querySelector("[role=treeitem]"));
  return root;
};
