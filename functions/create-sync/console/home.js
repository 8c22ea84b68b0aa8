// Database: all syncs, what is under way, and the way to a new one.

import { get, getAll } from "./api.js";
import { empty, h, number, poll, problem, unique, when } from "./dom.js";
import { places, whyIs } from "./parts.js";
import { t } from "./words.js";

const LOOK_MS = 5_000;

const TONE = { creating: "warn", active: "good", paused: "warn", stopped_keeping: "", stopped_leaving: "" };

const one = (sync) => {
  const { live, list } = sync;
  const title = unique("sync");
  const fact = (name, value) => [h("dt", null, t(name)), h("dd", null, value)];
  const left = live?.list;
  const told = sync.held ? t("home.held") : sync.not_delivered ? t("home.not_delivered") : null;
  return h("li", { class: "card sync", "aria-labelledby": title, "data-spot": sync.id },
    h("div", { class: "head" },
      h("h2", { id: title }, h("a", { href: `#/syncs/${encodeURIComponent(sync.id)}`, "data-focus": sync.id }, sync.audience_name, " → ", list.name)),
      h("span", { class: `tag ${TONE[sync.status] ?? ""}` }, sync.start === "report_only" && sync.status === "active" ? t("status.report_only") : t(`status.${sync.status}`))),
    h("dl", { class: "facts" },
      fact("home.browsers", number(live?.audience?.size)),
      fact("home.people", number(live?.wanted)),
      fact("home.left", left ? t("home.left_of", { add: number(left.to_add), remove: number(left.to_remove) }) : "–"),
      fact("home.delivered", when(live?.audience?.delivered_at)),
      fact("home.handled", when(left?.handled_at))),
    told && h("p", { class: "bad" }, told), sync.why && h("p", { class: "soft" }, whyIs(sync)));
};

/** What is under way, in the order of the work. */
const work = (status) => {
  const sum = (name) => (status.outstanding ?? []).reduce((all, left) => all + (left[name] ?? 0), 0);
  return [
    ["files", status.imports_running],
    ["passes", status.passes_pending],
    ["lists", status.creating],
    ["add", sum("add")],
    ["remove", sum("remove")],
    ["look_ups", status.due_tokens],
    ["reports", status.reports_pending],
    ["erasures", status.erasures_open],
  ].filter(([, count]) => count > 0);
};

const flight = (status) => {
  const all = work(status);
  const today = status.browsers_today ?? {};
  const lost = (today.not_stored_cookie_over_cap ?? 0) + (today.not_stored_browser_over_cap ?? 0);
  return [
    h("h2", null, t("flight.title")),
    status.held?.length > 0 && h("p", { class: "bad" }, t("flight.held", { count: status.held.length })),
    status.stuck > 0 && h("p", { class: "bad" }, t("flight.stuck", { count: status.stuck })),
    all.length > 0 ? h("ul", null, all.map(([what, count]) => h("li", null, t(`flight.${what}`, { count })))) : h("p", null, t("flight.nothing")),
    h("p", { class: "soft" }, t("flight.calls", { count: status.calls_today ?? 0 }), " ", t("flight.browsers", { count: today.new_pairs_from_pages ?? 0 }),
      lost > 0 && ` ${t("flight.lost", { count: lost })}`),
    today.beyond_the_days_cap > 0 && h("p", { class: "bad" }, t("flight.cap", { beyond: today.beyond_the_days_cap, dropped: today.of_those_not_kept })),
  ].filter(Boolean);
};

/** *New* opens what can be made. */
const news = () => {
  const items = h("ul", { id: "new-items", class: "popup", hidden: true }, h("li", null, h("a", { href: "#/new" }, t("home.sync_from"))));
  const button = h("button", { type: "button", class: "main", "aria-expanded": "false", "aria-controls": "new-items", onclick: () => fold(!items.hidden) }, t("home.new"));
  const fold = (closed) => {
    items.hidden = closed;
    button.setAttribute("aria-expanded", String(!closed));
    if (!closed) items.querySelector("a").focus();
  };
  const box = h("div", { class: "combobox make", onkeydown: (event) => {
    if (event.key !== "Escape" || items.hidden) return;
    fold(true);
    button.focus();
  } }, button, items);
  box.addEventListener("focusout", (event) => !box.contains(event.relatedTarget) && fold(true));
  return box;
};

export const page = async (_params, { signal }) => {
  const read = async () => {
    try {
      return await Promise.all([getAll("/syncs", { signal }), get("/status", { signal })]);
    } catch (error) {
      if (error.status === 404) return null;
      throw error;
    }
  };
  const heading = h("div", { class: "head" }, h("h1", null, t("home.title")), news());
  const first = await read();
  if (!first) {
    return h("div", null, heading, empty(h("p", null, t("door.none")), h("p", null, t("door.none.help")), h("p", null, h("a", { class: "button", href: "#/settings" }, t("nav.settings")))));
  }
  const nothing = () => empty(h("p", null, h("strong", null, t("home.empty"))), h("p", null, t("home.empty.help")), h("p", null, h("a", { class: "button main", href: "#/new" }, t("home.sync_from"))));
  const { place, band } = places();
  const list = place();
  const under = h("section", { class: "card flight" });
  const out = h("div");
  const show = ([syncs, status]) => {
    list.put(syncs, () => (syncs.length > 0 ? h("ul", { class: "syncs" }, syncs.map(one)) : nothing()));
    // Below it there is nothing that could move.
    under.replaceChildren(...flight(status));
  };
  show(first);
  // It goes on until another page is shown. A server that is away is asked again; what else fails is said.
  poll(async () => {
    if (!heading.isConnected) return false;
    const now = await read();
    if (now) show(now);
    return false;
  }, LOOK_MS, signal).catch((error) => out.replaceChildren(problem(error)));
  return h("div", null, heading, out, list, under, band);
};
