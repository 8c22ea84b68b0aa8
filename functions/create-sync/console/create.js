// Sync from Experience Cloud Audience: the steps that follow *New*. What was chosen stands here, so that going back, or
// another language, loses nothing. Nothing is written before *Sync*.

import { get, getAll } from "./api.js";
import { empty, field, h, loading, unique, when } from "./dom.js";
import { list } from "./create-list.js";
import { done } from "./create-done.js";
import { at, door, STEPS } from "./steps.js";
import { tree } from "./tree.js";
import { t } from "./words.js";

/** Audiences that are shown at once; the search narrows them. */
const SHOWN = 200;

const fresh = () => ({
  folder: null,
  audience: null,
  text: "",
  list: null,
  into: null,
  leaving: "remove",
  members_before: "keep",
  start: "now",
  key: null,
  preview: null,
  setup: null,
  made: null,
});
let state = fresh();

/** Forgets what was chosen. */
export const forget = () => {
  state = fresh();
};
// Another subscription has other folders, audiences and lists.
addEventListener("subscription", forget);

/** The preview and the request were of other choices. */
const other = () => Object.assign(state, { preview: null, key: null });

/** A step's frame: where one is, the heading, and the ways back and on. */
const frame = (step, heading, ...content) =>
  h("div", null,
    h("p", { class: "soft eyebrow" }, t("home.sync_from"), " · ", t("create.step", { n: STEPS.indexOf(step) + 1, of: STEPS.length })),
    h("ol", { class: "steps", "aria-label": t("create.steps") }, STEPS.map((name) =>
      h("li", { "aria-current": name === step ? "step" : null }, t(`step.${name}`)))),
    h("h1", null, heading), content);

const subscription = async (signal) => {
  try {
    return await get("/subscription", { signal });
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
};

const closed = (why) =>
  h("div", { class: "notice bad", role: "alert" }, h("p", null, h("strong", null, t(`door.${why}`))), h("p", null, t(`door.${why}.help`)),
    h("p", null, h("a", { href: why === "none" || why === "hipaa" ? "#/settings" : "#/setup" }, t(why === "none" || why === "hipaa" ? "nav.settings" : "nav.setup"))));

/** Audience Manager's folders get a top of their own where Experience Platform's have one. */
const both = (rows) => {
  const manager = rows.filter((row) => row.id.startsWith("aam:"));
  if (manager.length === rows.length || rows.some((row) => row.id === "aam:root")) return rows;
  const root = { id: "aam:root", parent_id: null, name: manager[0]?.origin ?? "Audience Manager" };
  return [root, ...rows.map((row) => (row.id.startsWith("aam:") && !row.parent_id ? { ...row, parent_id: root.id } : row))];
};

/** Asks how the set-up stands. What failed is asked for again when it is needed. */
const check = () => {
  const mine = Promise.all([get("/setup?for=sync"), getAll("/feeds").catch(() => [])])
    .then(([{ rows }, feeds]) => ({ rows, feeds })).catch(() => {
      if (state.setup === mine) state.setup = null;
      return null;
    });
  state.setup = mine;
};

/** A library that does not answer says so in its name. */
const named = (row) => (row.unreachable ? { ...row, name: t("folder.unreachable", { name: row.name }) } : row);

const folder = async (signal) => {
  const found = await subscription(signal);
  const why = door(found);
  if (why) return frame("folder", t("step.folder"), closed(why), h("p", null, h("a", { href: "#/" }, t("create.back_home"))));
  const rows = both(await get("/folders", { signal })).map(named);
  // It takes a while, and is shown two steps later.
  check();
  if (rows.length === 0) return frame("folder", t("step.folder"), empty(t("folder.none"), h("a", { href: "#/setup" }, t("nav.setup"))));
  const wrong = h("p", { class: "wrong", role: "alert" });
  const on = () => {
    if (state.folder) location.hash = at("audience");
    else wrong.textContent = t("folder.choose");
  };
  const choose = (row) => {
    if (state.folder?.id !== row.id) {
      state.audience = null;
      other();
    }
    state.folder = { id: row.id, name: row.name };
    wrong.textContent = "";
  };
  return frame("folder", t("step.folder"), h("p", { class: "hint" }, t("folder.hint")),
    h("div", { class: "card box" }, tree({ label: t("step.folder"), rows, selected: state.folder?.id, choose })), wrong,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "main", onclick: on }, t("create.next")),
      h("a", { class: "button", href: "#/" }, t("base.cancel"))));
};

/** What is known of an audience, in a line. */
const facts = (audience) =>
  audience.delivered
    ? [typeof audience.size === "number" && `${t("audience.browsers", { count: audience.size })} · `, t("audience.delivered"), " ", when(audience.delivered_at)]
    : t("audience.not_delivered");

const audience = async (signal) => {
  const rows = await getAll(`/folders/${encodeURIComponent(state.folder.id)}/audiences?limit=500`, { signal });
  rows.sort((a, b) => a.name.localeCompare(b.name));
  const heading = t("step.audience");
  const back = h("a", { class: "button", href: at("folder") }, t("create.back"));
  if (rows.length === 0) return frame("audience", heading, empty(t("audience.none", { folder: state.folder.name })), h("div", { class: "buttons" }, back));
  const wrong = h("p", { class: "wrong", role: "alert" });
  const results = h("div", { role: "radiogroup", "aria-label": heading, class: "results box" });
  const count = h("p", { class: "hint", role: "status" });
  const name = unique("audience");
  const row = (one) => {
    const id = unique("about");
    const choose = () => {
      if (state.audience?.audience_id !== one.audience_id) other();
      state.audience = one;
      wrong.textContent = "";
    };
    return h("label", { class: "result" },
      h("input", { type: "radio", name, checked: one.audience_id === state.audience?.audience_id, "aria-describedby": id, onchange: choose }),
      h("span", null, h("span", { class: "name" }, one.name),
        h("span", { id, class: "about" }, one.description && h("span", null, one.description), h("span", { class: "soft" }, facts(one)))));
  };
  const narrow = () => {
    const words = search.value.toLocaleLowerCase().split(/\s+/).filter(Boolean);
    const fits = (one) => words.every((word) => `${one.name} ${one.description ?? ""} ${one.audience_id}`.toLocaleLowerCase().includes(word));
    const found = rows.filter(fits);
    results.replaceChildren(...found.slice(0, SHOWN).map(row));
    if (found.length === 0) results.append(h("p", { class: "soft" }, t("audience.no_match")));
    count.textContent = found.length > SHOWN ? t("audience.more", { shown: SHOWN, count: found.length }) : t("audience.found", { count: found.length });
  };
  const search = h("input", { type: "search", autocomplete: "off", oninput: narrow });
  narrow();
  const on = () => {
    if (state.audience) location.hash = at("list");
    else wrong.textContent = t("audience.choose");
  };
  return frame("audience", heading, h("p", { class: "soft" }, t("audience.in", { folder: state.folder.name })),
    field({ label: t("audience.search"), control: search }), count, results, wrong,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "main", onclick: on }, t("create.next")), back));
};

/** The earliest step that still misses something. */
const missing = (step) => {
  if (step === "done") return state.made ? null : "folder";
  if (step !== "folder" && !state.folder) return "folder";
  return step === "list" && !state.audience ? "audience" : null;
};

export const page = async (params, { signal }) => {
  const step = params.query.get("step") ?? "folder";
  if (step !== "done" && state.made) forget();
  const first = missing(step);
  if (first) {
    location.replace(first === "folder" ? "#/new" : at(first));
    return loading(12);
  }
  if (step === "folder") return folder(signal);
  if (step === "audience") return audience(signal);
  if (step === "list") {
    if (!state.setup) check();
    return frame("list", t("step.list"), await list(state, signal));
  }
  return frame("done", t("done.title"), await done(state, forget));
};
