// The frame round the pages: header, router, focus. Pages are loaded when somebody goes there.

import * as auth from "./auth.js";
import { MUNCHKIN } from "./api.js";
import { field, h, loading, problem } from "./dom.js";
import { language, languages, remember, remembered, setLanguage, t } from "./words.js";

const PAGES = [
  ["#/", "./home.js"],
  ["#/new", "./create.js"],
  ["#/syncs/:id", "./sync.js"],
  ["#/syncs/:id/runs", "./runs.js"],
  ["#/syncs/:id/compare", "./compare.js"],
  ["#/explain", "./explain.js"],
  ["#/setup", "./setup.js"],
  ["#/settings", "./settings.js"],
  ["#/feeds", "./feeds.js"],
  ["#/audit", "./audit.js"],
  ["#/help", "./help.js"],
];
const NAV = [["#/", "home"], ["#/explain", "explain"], ["#/setup", "setup"], ["#/feeds", "feeds"], ["#/settings", "settings"], ["#/audit", "audit"]];

/** A part of an address; nothing where it is none. */
const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
};

/** The page of a place, and what its address names. */
const route = (hash) => {
  const [path, query] = (hash || "#/").split("?");
  const parts = path.split("/");
  for (const [pattern, file] of PAGES) {
    const wanted = pattern.split("/");
    if (wanted.length !== parts.length) continue;
    const params = { query: new URLSearchParams(query) };
    const fits = wanted.every((want, n) => {
      if (!want.startsWith(":")) return want === parts[n];
      params[want.slice(1)] = decoded(parts[n]);
      return params[want.slice(1)] !== "";
    });
    if (fits) return { file, params };
  }
  return null;
};

const main = h("main", { id: "main", tabindex: "-1" });

/** Another subscription, or none: what was begun for the one before is forgotten. */
const subscribe = (munchkin) => {
  remember(MUNCHKIN, munchkin);
  dispatchEvent(new Event("subscription"));
};

const header = () => {
  const here = (href) => (href === "#/" ? ["", "#/", "#/new"].includes(location.hash.split("?")[0]) || location.hash.startsWith("#/syncs/") : location.hash.startsWith(href));
  const link = ([href, name]) => h("li", null, h("a", { href, "aria-current": here(href) ? "page" : null }, t(`nav.${name}`)));
  const choose = h("select", { "aria-label": t("base.language"), onchange: () => setLanguage(choose.value) },
    languages().map((code) => h("option", { value: code, lang: code, selected: code === language() }, t(`language.${code}`))));
  const nav = h("nav", { id: "nav", "aria-label": t("base.nav") }, h("ul", null, NAV.map(link)));
  const menu = h("button", { type: "button", class: "menu", "aria-expanded": "false", "aria-controls": "nav", onclick: () => {
    const open = menu.getAttribute("aria-expanded") === "true";
    menu.setAttribute("aria-expanded", String(!open));
    nav.classList.toggle("open", !open);
  } }, t("base.menu"));
  const user = auth.user();
  const munchkin = remembered(MUNCHKIN);
  // Only where there are several, one was ever chosen.
  const other = () => {
    subscribe("");
    // The place names something of the one before.
    if (["", "#/"].includes(location.hash)) show();
    else location.hash = "#/";
  };
  return h("header", { class: "top" },
    h("a", { class: "skip", href: "#main", onclick: (event) => (event.preventDefault(), main.focus()) }, t("base.skip")),
    h("a", { class: "product", href: "#/" }, t("base.product")), menu, nav,
    h("div", { class: "tools" }, choose, h("a", { href: "#/help", "aria-current": here("#/help") ? "page" : null }, t("nav.help")),
      munchkin && h("button", { type: "button", class: "link", "aria-label": t("base.switch", { id: munchkin }), onclick: other }, munchkin),
      user?.name && h("span", { class: "who" }, user.name, user.role === "viewer" && ` (${t("base.viewer")})`),
      auth.token() && h("button", { type: "button", onclick: () => auth.signOut() }, t("base.sign_out"))));
};

/** Where there are several subscriptions, one is chosen first. */
const chooser = (ids) => {
  const control = h("select", null, ids.map((id) => h("option", { value: id, selected: id === remembered(MUNCHKIN) }, id)));
  const form = h("form", { class: "narrow", onsubmit: (event) => {
    event.preventDefault();
    subscribe(control.value);
    show();
  } }, h("h1", null, t("base.which")), field({ label: t("base.munchkin"), control }), h("button", { class: "main" }, t("base.choose")));
  return form;
};

const failed = (error) =>
  error.body?.munchkin_ids ? chooser(error.body.munchkin_ids) : h("div", null, h("h1", null, t("base.failed")), problem(error),
    h("p", null, h("button", { type: "button", onclick: () => (started ? show() : location.reload()) }, t("base.again"))));

let stop;
let shown = false;
let started = false;

/** Shows the page of the address. The page before is told by its signal that it is over. */
const show = async () => {
  stop?.abort();
  const mine = (stop = new AbortController());
  document.querySelector("header.top")?.replaceWith(header());
  main.replaceChildren(loading(12));
  let node;
  let title;
  try {
    const found = route(location.hash);
    if (!found) throw Object.assign(new Error(t("base.no_page")), { status: 404 });
    const page = await import(found.file);
    node = await page.page(found.params, { signal: mine.signal });
    title = page.title?.(found.params);
  } catch (error) {
    if (mine.signal.aborted) return;
    node = failed(error);
  }
  if (mine.signal.aborted) return;
  main.replaceChildren(node);
  const heading = node.querySelector("h1");
  document.title = [title ?? heading?.textContent, t("base.product")].filter(Boolean).join(" · ");
  // On the first page the focus stays where the browser has it.
  if (heading && shown) {
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
  shown = true;
};

document.getElementById("away").remove();
try {
  await auth.ready();
} catch (error) {
  main.append(failed(error));
}
// Only now the header is as high as it stays: who is signed in stands in it.
document.body.append(header(), main);
if (main.childElementCount === 0) {
  started = true;
  addEventListener("hashchange", show);
  addEventListener("words", show);
  await show();
}
