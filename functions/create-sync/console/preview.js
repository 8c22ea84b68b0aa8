// The preview of a sync: always as high as it will be, so that nothing moves when the numbers come.

import { date, duration, h, number, percent } from "./dom.js";
import { t } from "./words.js";

/** Whom the audience comes to, and what the list comes to: beside each other where there is room. */
const HALVES = [["browsers", "addressable", "known", "people", "already"], ["kept_out", "to_add", "calls", "left", "time"]];
const ROWS = HALVES.flat();

const about = (text, is) => (is ? t("preview.about", { what: text }) : text);

const MINUTE = 60;
const HOUR = 60 * MINUTE;
/** An estimate in words, no finer than it is. */
export const roughly = (seconds) => {
  const size = seconds < 2 * HOUR ? MINUTE : seconds < 48 * HOUR ? HOUR : 24 * HOUR;
  return duration(Math.max(1, Math.ceil(seconds / size)) * size);
};

/** The numbers of a preview by row; a dash where one is not known yet. */
const values = (preview) => {
  if (!preview) return {};
  const { browsers, addressable, known, people, calls } = preview;
  const share = (part, whole) => (whole > 0 && typeof part === "number" ? ` (${percent(part / whole)})` : "");
  const reckoned = (count) => (typeof count === "number" ? about(number(count), preview.to_add_is_estimate) : "–");
  return {
    browsers: number(browsers),
    addressable: number(addressable) + share(addressable, browsers),
    known: number(known) + share(known, addressable),
    people: number(people),
    already: reckoned(preview.already_there),
    kept_out: number(preview.kept_out),
    to_add: reckoned(preview.to_add),
    calls: number(calls?.total),
    left: number(preview.left_today),
    time: typeof preview.seconds === "number" ? about(roughly(preview.seconds), true) : calls ? t("done.due_unknown") : "–",
  };
};

/** What the choices mean for the people in the list. */
const meaning = ({ list, leaving, members_before, start }) => {
  if (start === "report_only") return t("meaning.report_only");
  const before = list?.id ? t(`meaning.before.${members_before}`) : t("meaning.new_list");
  return `${before} ${t(`meaning.leaving.${leaving}`)}`;
};

/**
 * The preview of a sync of `audience` on screen; `show(preview, status, why)` fills it in, `mean(state)` says what the
 * choices do. `why` says why there is none.
 */
export const previewCard = (audience) => {
  const cells = Object.fromEntries(ROWS.map((row) => [row, h("td", { class: "n" }, "–")]));
  const status = h("p", { class: "slot soft" });
  const choices = h("p", { class: "slot" });
  const unasked = h("p", { class: "slot soft" });
  const show = (preview, text, why) => {
    const now = values(preview);
    for (const row of ROWS) cells[row].textContent = now[row] ?? "–";
    status.textContent = text ?? (preview?.as_of ? t("preview.as_of", { time: date(preview.as_of) }) : "");
    unasked.replaceChildren(why ?? (preview?.not_asked > 0 ? t("preview.not_asked", { count: preview.not_asked }) : ""));
  };
  const mean = (state) => {
    choices.textContent = meaning(state);
  };
  const element = h("section", { class: "card preview", "aria-labelledby": "preview-title" },
    h("h2", { id: "preview-title" }, t("preview.title")),
    !audience.delivered && h("p", { class: "notice warn" }, t("preview.not_delivered")), status,
    h("div", { class: "two" }, HALVES.map((rows) =>
      h("table", null, h("tbody", null, rows.map((row) => h("tr", null, h("th", { scope: "row" }, t(`preview.${row}`)), cells[row])))))),
    unasked, choices, h("p", null, t("meaning.campaigns")));
  return { element, show, mean };
};
