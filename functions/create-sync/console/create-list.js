// The destination: a list that is there or a new one, the options, the preview under it, and *Sync*.

import * as auth from "./auth.js";
import { get, post } from "./api.js";
import { combobox } from "./combobox.js";
import { read, same } from "./destination.js";
import { field, h, number, poll, problem, refusal, say, unique } from "./dom.js";
import { matters } from "./matters.js";
import { whyIs } from "./parts.js";
import { previewCard } from "./preview.js";
import { words as setupWords } from "./setup.js";
import { at } from "./steps.js";
import { remember, remembered, t } from "./words.js";

/** Marketo's folder of the database's lists: its id where it is as Marketo sets it up, and its name. */
const GROUP_LISTS = 12;
const GROUP_LISTS_NAME = "Group Lists";
const LOOK_MS = 700;
/** After the last choice. */
const REST_MS = 500;

const fresh = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The body of `POST /syncs` and of its preview. */
const wanted = ({ audience, list, into, leaving, members_before, start }) => ({
  audience_id: audience.audience_id,
  list: list.id ? { id: list.id } : { name: list.name, ...(into ? { folder_id: into } : {}) },
  leaving,
  members_before,
  start,
});

/** And what becomes of it, and when. */
const meant = (list) => (!list ? "" : t(list.id ? "list.existing_note" : "list.new_note"));

/** What the choice of a list comes to, in a line. */
const said = (list) => {
  if (!list) return t("list.choose");
  if (!list.id) return t("list.new", { name: list.name });
  return list.name ? t("list.existing", { name: list.name, id: String(list.id) }) : t("list.by_id", { id: String(list.id) });
};

const options = (state, changed) => {
  const set = (field, legend, values) => {
    const name = unique(field);
    const choice = ([value, words]) => h("label", { class: "choice" }, h("input", { type: "radio", name, checked: state[field] === value, onchange: () => {
      state[field] = value;
      changed();
    } }), words);
    return h("fieldset", null, h("legend", null, legend), Object.entries(values).map(choice));
  };
  const report = h("input", { type: "checkbox", checked: state.start === "report_only", onchange: () => {
    state.start = report.checked ? "report_only" : "now";
    changed();
  } });
  return h("details", { class: "card options" }, h("summary", null, t("options.title")),
    set("leaving", t("options.leaving"), { remove: t("options.leaving.remove"), keep: t("options.leaving.keep") }),
    set("members_before", t("options.before"), { keep: t("options.before.keep"), adopt: t("options.before.adopt") }),
    h("label", { class: "choice" }, report, t("options.report_only")), h("p", { class: "hint" }, t("options.report_only.hint")));
};

/**
 * What the check of the set-up found that will hurt a sync of this audience; `mean(state)` hides what does not hurt the
 * chosen list. It keeps its room, so that nothing moves.
 */
const warnings = (check, state) => {
  const choice = ({ audience, list, start }) => ({ audience: audience.audience_id, list, start, feeds: check.feeds });
  // Of any list, as long as none is chosen.
  const rows = check.rows.filter((row) => matters(row, choice({ audience: state.audience, list: null, start: "now" })));
  const items = rows.map((row) => h("li", null, setupWords(row, "title"), " — ", setupWords(row, "means")));
  const element = h("section", { class: "notice warn", "aria-label": t("list.warnings") },
    h("p", null, h("strong", null, t("list.warnings"))),
    h("ul", null, items),
    h("p", null, h("a", { href: "#/setup" }, t("nav.setup"))));
  const mean = (now) => {
    const hurts = rows.map((row) => matters(row, choice(now)));
    items.forEach((item, n) => item.classList.toggle("away", !hurts[n]));
    element.classList.toggle("away", !hurts.some(Boolean));
  };
  mean(state);
  return rows.length === 0 ? null : { element, mean };
};

/** The folders for a new list, and the one that is preset. */
const folders = async (state, munchkin, signal) => {
  const found = await get("/list-folders", { signal }).catch(() => []);
  const last = Number(remembered(`folder/${munchkin}`));
  const preset = [state.into, last, GROUP_LISTS].find((id) => found.some((one) => one.id === id))
    ?? (found.find(({ name }) => name === GROUP_LISTS_NAME) ?? found[0])?.id ?? null;
  return { found, preset };
};

export const list = async (state, signal) => {
  const subscription = await get("/subscription", { signal });
  const munchkin = subscription.munchkin_id;
  const [{ found, preset }, setup] = await Promise.all([
    folders(state, munchkin, signal),
    // Not longer than a moment: it is shown below when it comes later.
    Promise.race([state.setup ?? null, new Promise((resolve) => setTimeout(resolve, 1500, null))]),
  ]);
  state.into = preset;
  const card = previewCard(state.audience);
  let timer;
  let asked;

  const what = h("p", { class: "what", role: "status" });
  const note = h("p", { class: "hint" });
  const tell = (text, more) => {
    what.textContent = text;
    note.textContent = more;
  };
  tell(said(state.list), meant(state.list));
  const above = h("div", { class: "above" });
  const into = h("select", { disabled: Boolean(state.list?.id) || found.length === 0, onchange: () => {
    state.into = Number(into.value);
    changed();
  } }, found.length === 0 && h("option", null, t("list.folder_default")),
  found.map((one) => h("option", { value: String(one.id), selected: one.id === preset }, one.path ?? one.name)));
  const folderField = field({ label: t("list.folder"), hint: t("list.folder_hint"), control: into });
  folderField.classList.add("roomy");

  const decide = (chosen) => {
    state.list = chosen;
    tell(said(chosen), meant(chosen));
    into.disabled = Boolean(chosen?.id) || found.length === 0;
    listField.fail("");
    folderField.fail("");
    above.replaceChildren();
  };

  /** Shows a refusal where it belongs. */
  const refuse = (error) => {
    // Where no answer came there is none of these.
    const { body = {}, errors = [] } = error;
    const pointer = errors[0]?.pointer ?? "";
    const place = (to, ...more) => {
      box.close();
      to.fail(h("p", null, refusal(error)), ...more);
    };
    const pick = (one) => h("button", { type: "button", class: "link", onclick: () => {
      box.input.value = one.name;
      state.text = one.name;
      decide({ id: one.id, name: one.name });
      changed();
    } }, t("list.take", { name: one.name, id: String(one.id) }));
    if (body.existing_sync) {
      place(listField, h("a", { href: `#/syncs/${encodeURIComponent(body.existing_sync.id)}` }, t("refused.see_sync")));
    } else if (body.existing_lists) place(listField, h("div", { class: "takes" }, body.existing_lists.slice(0, 5).map(pick)));
    else if (pointer.startsWith("/list/folder_id")) place(folderField);
    else if (pointer.startsWith("/list")) place(listField);
    else if (pointer === "/audience_id") {
      above.replaceChildren(problem(error), h("p", null, h("a", { href: at("audience") }, t("refused.other_audience"))));
    } else above.replaceChildren(problem(error));
  };

  const preview = async () => {
    asked?.abort();
    const mine = (asked = new AbortController());
    signal.addEventListener("abort", () => mine.abort(), { once: true });
    state.preview = null;
    if (!state.list) return card.show(null, t("preview.choose"));
    card.show(null, t("preview.counting"));
    try {
      const job = await post("/syncs/preview", wanted(state), { signal: mine.signal });
      await poll(async () => {
        const now = await get(`/previews/${encodeURIComponent(job.id)}`, { signal: mine.signal });
        if (mine.signal.aborted) return true;
        const working = now.status === "counting" || now.status === "asking";
        if (now.status === "failed") {
          if (now.code === "not_delivered") card.show(null, t("preview.nothing_yet"));
          else card.show(null, t("preview.failed"), whyIs({ why: now.why, why_code: now.code, why_values: now.values }));
          if (now.code === "list_gone") listField.fail(h("p", null, t("refused.unknown_list")));
          return true;
        }
        card.show(now, working ? t(`preview.${now.status}`) : undefined);
        if (working) return false;
        state.preview = now;
        if (state.list?.id && !state.list.name && now.list?.name) decide({ id: state.list.id, name: now.list.name });
        say(t("preview.ready", { people: number(now.people), add: number(now.to_add) }));
        return true;
      }, LOOK_MS, mine.signal);
    } catch (error) {
      if (mine.signal.aborted) return;
      card.show(null, t("preview.none"));
      refuse(error);
    }
  };

  /** Something was chosen: the preview follows, and *Sync* would be another request. */
  const changed = () => {
    state.key = null;
    state.preview = null;
    card.mean(state);
    warned?.mean(state);
    clearTimeout(timer);
    asked?.abort();
    card.show(null, state.list ? t("preview.counting") : t("preview.choose"));
    timer = setTimeout(preview, REST_MS);
  };

  const option = (one) => ({ label: one.name, hint: [t("list.id", { id: String(one.id) }), one.workspace].filter(Boolean).join(" · "), list: { id: one.id, name: one.name } });
  const search = async (text, stop) => {
    const typed = read(text);
    if (typed?.wrong) return [];
    if (typed?.id && !typed.name) return [{ label: t("list.by_id", { id: String(typed.id) }), list: { id: typed.id } }];
    const { lists } = await get(`/lists?search=${encodeURIComponent(typed?.name ?? "")}`, { signal: stop });
    const all = lists.map(option);
    if (typed?.id) all.unshift({ label: t("list.by_id", { id: String(typed.id) }), list: { id: typed.id } });
    if (typed && !lists.some((one) => same(one.name, typed.name))) all.push({ label: t("list.create", { name: typed.name }), list: { name: typed.name } });
    return all;
  };
  /** What a text means that nobody has chosen from the suggestions. */
  const settle = (suggested, text) => {
    const typed = read(text);
    if (!typed || typed.wrong) {
      decide(null);
      if (typed) listField.fail(h("p", null, t(`list.wrong_${typed.wrong}`)));
    } else if (typed.id) decide(suggested.find((one) => one.list.id === typed.id)?.list ?? { id: typed.id });
    else {
      const twins = suggested.filter((one) => one.list.id && same(one.list.name, typed.name));
      decide(twins.length === 0 ? { name: typed.name } : twins.length === 1 ? twins[0].list : null);
      if (twins.length > 1) listField.fail(h("p", null, t("list.several", { count: twins.length })));
    }
    changed();
  };
  const box = combobox({
    value: state.text,
    attributes: { maxlength: 2000, id: unique("list") },
    search,
    typed: (text) => {
      state.text = text;
      decide(null);
      tell(text.trim() ? t("list.looking") : said(null), "");
      changed();
    },
    found: (suggested, text) => {
      // What was chosen meanwhile stays.
      if (!state.list && text === state.text) settle(suggested, text);
    },
    pick: (one) => {
      if (one.list.name) box.input.value = one.list.name;
      state.text = box.input.value;
      decide(one.list);
      changed();
    },
    failed: (error) => {
      const typed = read(state.text);
      if (error.status === 403) refuse(error);
      else if (typed?.id) settle([], state.text);
      else listField.fail(h("p", null, t("list.search_failed")), h("p", null, refusal(error)));
    },
  });
  // The label's field is the text field; the popup lies beside it.
  const listField = field({ label: t("list.label"), hint: t("list.hint"), control: box.input });
  box.input.replaceWith(box.element);
  box.element.prepend(box.input);

  const viewer = auth.user()?.role === "viewer";
  const reason = unique("reason");
  const button = h("button", { type: "button", class: "main", "aria-disabled": viewer ? "true" : null, "aria-describedby": viewer ? reason : null, onclick: () => sync() }, t("create.sync"));
  const sync = async () => {
    if (viewer || button.getAttribute("aria-busy") === "true") return;
    button.setAttribute("aria-busy", "true");
    try {
      // Whoever is quick has typed a name that was not looked up yet.
      if (!state.list && state.text.trim()) await box.ask(state.text);
      if (!state.list) {
        if (box.input.getAttribute("aria-invalid") !== "true") listField.fail(h("p", null, t("list.choose")));
        box.input.focus();
        return;
      }
      above.replaceChildren();
      // The same key until an answer has come: a request whose answer was lost makes no second sync.
      state.key ??= fresh();
      try {
        state.made = await post("/syncs", wanted(state), { headers: { "idempotency-key": state.key } });
      } catch (error) {
        if (error.status && error.status < 500) state.key = null;
        refuse(error);
        (document.querySelector("main [aria-invalid=true]") ?? button).focus();
        return;
      }
      if (!state.list.id && state.into) remember(`folder/${munchkin}`, String(state.into));
      asked?.abort();
      location.hash = at("done");
    } finally {
      button.removeAttribute("aria-busy");
    }
  };

  const late = h("div");
  let warned = setup && warnings(setup, state);
  if (!setup && state.setup) {
    state.setup.then((check) => {
      warned = check && warnings(check, state);
      if (warned) late.append(warned.element);
    });
  }
  signal.addEventListener("abort", () => clearTimeout(timer), { once: true });
  card.mean(state);
  card.show(state.preview, state.list ? undefined : t("preview.choose"));
  if (state.list && !state.preview) timer = setTimeout(preview, 0);
  return h("form", { class: "destination", novalidate: true, onsubmit: (event) => event.preventDefault() },
    h("p", { class: "soft" }, t("list.from", { audience: state.audience.name })), setup && warned?.element,
    h("div", { class: "narrow" }, listField, h("div", { class: "chosen" }, what, note, above, listField.querySelector(".wrong"))),
    card.element,
    h("div", { class: "narrow" }, folderField, options(state, changed)),
    viewer && h("p", { id: reason, class: "hint" }, t("base.viewer_only")),
    h("div", { class: "buttons" }, button, h("a", { class: "button", href: at("audience") }, t("create.back"))), late);
};
