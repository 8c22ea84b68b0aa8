// The questions that users ask, with short answers; and the user guide.

import { h } from "./dom.js";
import { language, t } from "./words.js";

const QUESTIONS = ["who", "before", "steps", "cookie_sync", "size", "once", "leave", "by_hand", "campaigns", "pause", "erase"];

const PICTURE = /!\[[^\]]*\]\([^)]*\)/g;
const PIECES = /(`[^`]+`|\*\*.+?\*\*(?!\*)|\*[^*]+\*|\[[^\]]+\]\([^)]+\))/;

/** Bold, emphasis, code and links of a line. Other documents stand beside the guide in the repository, and not here: their links are text. */
const inline = (text) => text.split(PIECES).filter(Boolean).map((piece) => {
  if (!PIECES.test(piece)) return piece;
  if (piece.startsWith("`")) return h("code", null, piece.slice(1, -1));
  if (piece.startsWith("**")) return h("strong", null, inline(piece.slice(2, -2)));
  if (piece.startsWith("*")) return h("em", null, inline(piece.slice(1, -1)));
  const [, words, href] = /^\[(.+)\]\((.+)\)$/.exec(piece);
  return /^https?:\/\//.test(href) ? h("a", { href, target: "_blank", rel: "noopener" }, inline(words)) : inline(words);
});

/** Headings, paragraphs and lists of a Markdown text, as elements. Pictures are left out. */
const markdown = (text) => {
  const blocks = [];
  // What further lines go on with: its last text.
  let open = null;
  for (const raw of text.split("\n")) {
    const line = raw.replace(PICTURE, "").trimEnd();
    const [, marks, heading] = /^(#{1,4}) (.+)/.exec(line) ?? [];
    const [, mark, item] = /^(-|\d+\.) (.+)/.exec(line) ?? [];
    if (/^[\s|:-]*$/.test(line)) open = null;
    else if (marks) {
      blocks.push({ tag: `h${marks.length}`, texts: [heading] });
      open = null;
    } else if (mark) {
      const tag = mark === "-" ? "ul" : "ol";
      if (blocks.at(-1)?.tag !== tag) blocks.push({ tag, texts: [] });
      open = blocks.at(-1).texts;
      open.push(item);
    } else if (open) open.push(`${open.pop()} ${line.trim()}`);
    else {
      open = [line.trim()];
      blocks.push({ tag: "p", texts: open });
    }
  }
  return blocks.map(({ tag, texts }) => h(tag, null, texts.map((one) => (tag === "ul" || tag === "ol" ? h("li", null, inline(one)) : inline(one)))));
};

const guide = async (signal) => {
  const answer = await fetch(`/console/guide.${language()}.md`, { signal });
  if (!answer.ok) throw Object.assign(new Error(`HTTP ${answer.status}`), { status: answer.status });
  return h("div", { class: "narrow" }, h("p", null, h("a", { href: "#/help" }, t("help.back"))), markdown(await answer.text()));
};

export async function page({ query }, { signal }) {
  if (query.has("guide")) return guide(signal);
  return h("div", { class: "narrow" },
    h("h1", null, t("help.title")),
    h("p", null, t("help.words")),
    h("p", null, h("a", { href: "#/help?guide" }, t("help.guide"))),
    QUESTIONS.map((name) => h("section", null, h("h2", null, t(`help.${name}`)), t(`help.${name}.answer`).split("\n").map((text) => h("p", null, text)))),
    h("p", null, h("a", { href: "#/setup" }, t("setup.title")), " · ", h("a", { href: "#/explain" }, t("explain.title"))));
}
