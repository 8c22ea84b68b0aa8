// The questions that users ask, with short answers.

import { h } from "./dom.js";
import { language, t } from "./words.js";

const QUESTIONS = ["who", "before", "steps", "cookie_sync", "size", "once", "leave", "by_hand", "campaigns", "pause", "erase"];

export async function page() {
  return h("div", { class: "narrow" },
    h("h1", null, t("help.title")),
    h("p", null, t("help.words")),
    h("p", null, h("a", { href: `/console/guide.${language()}.md`, target: "_blank", rel: "noopener" }, t("help.guide"))),
    QUESTIONS.map((name) => h("section", null, h("h2", null, t(`help.${name}`)), t(`help.${name}.answer`).split("\n").map((text) => h("p", null, text)))),
    h("p", null, h("a", { href: "#/setup" }, t("setup.title")), " · ", h("a", { href: "#/explain" }, t("explain.title"))));
}
