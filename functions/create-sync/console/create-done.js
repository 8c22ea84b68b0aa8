// The last step: what was started, when the first result is due, and where to watch it.

import { h } from "./dom.js";
import { roughly } from "./preview.js";
import { t } from "./words.js";

/** When the first result is due, as far as anybody knows. */
const due = ({ made, preview }) => {
  if (!made.delivered) return t("done.due_not_delivered");
  if (typeof preview?.seconds !== "number") return t("done.due_unknown");
  return t(made.start === "report_only" ? "done.due_report" : "done.due", { time: roughly(preview.seconds) });
};

export const done = async (state, forget) => {
  const { made } = state;
  const to = `#/syncs/${encodeURIComponent(made.id)}`;
  const list = made.list.id ? t("list.existing", { name: made.list.name, id: String(made.list.id) }) : t("done.making", { name: made.list.name });
  const fact = (name, value) => [h("dt", null, t(name)), h("dd", null, value)];
  return h("div", { class: "narrow" },
    h("p", null, t(made.start === "report_only" ? "done.reports" : "done.started")),
    h("dl", { class: "facts card" },
      fact("step.audience", made.audience_name),
      fact("list.label", list),
      fact("options.leaving", t(`options.leaving.${made.leaving}`)),
      fact("options.before", t(`options.before.${made.members_before}`)),
      fact("done.first", due(state)),
      fact("done.watch", h("a", { href: to, onclick: forget }, t("done.watch_here")))),
    !made.delivered && h("p", { class: "notice warn" }, t("preview.not_delivered")),
    h("p", null, t("done.leave")),
    h("div", { class: "buttons" }, h("a", { class: "button main", href: to, onclick: forget }, t("done.ok"))));
};
