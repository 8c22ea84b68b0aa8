// The funnel and the lines over time as pictures. What they show stands as text beside them, and in a table.

import { chart, thinned } from "./chart.js";
import { date, h, number, percent, svg } from "./dom.js";
import { widths } from "./funnel.js";
import { table } from "./parts.js";
import { has, t } from "./words.js";

/** "12 browsers": a count and its unit. */
export const counted = (count, unit) => (count === null ? t("funnel.unknown") : t(`unit.${unit}`, { count }));

/** What a drop or a gain means; of refusals, each code with Marketo's reason in our words. */
const meaning = ({ key, count, codes }, reasons, extra) => {
  const sentence = t(`funnel.why.${key}`, { count: count ?? 0 });
  const of = (code) => reasons?.find((reason) => reason.code === code)?.sentence;
  return [
    h("p", null, sentence),
    codes?.length > 0 && h("ul", null, codes.map(({ code, count: many }) =>
      h("li", null, t("funnel.code", { code, count: many }), " ", said(code, of(code))))),
    extra?.(key),
  ];
};

/** Our sentence for a code of Marketo's. */
export const said = (code, sentence) =>
  has(`marketo.${code}`) ? t(`marketo.${code}`) : h("span", { lang: "en" }, sentence);

/**
 * The funnel. `open` holds the keys of what somebody has opened; `extra(key)` adds to an opened sentence.
 */
export const funnelPicture = (stages, { open, reasons, extra }) => {
  const wide = widths(stages);
  const stage = (one, n) => {
    const [here, next] = [wide[n] * 1000, (wide[n + 1] ?? wide[n]) * 1000];
    const kept = Math.min(here, next);
    const bar = svg("svg", { viewBox: "0 0 1000 30", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" },
      svg("path", { class: "lost", d: `M0 0H${here}V14L${next} 30H0Z` }),
      svg("path", { class: "kept", d: `M0 0H${kept}V30H0Z` }));
    const chips = [...one.drops.map((drop) => [drop, "−"]), ...one.gains.map((gain) => [gain, "+"])];
    return h("li", { "data-stage": one.key },
      h("div", { class: "stage" },
        h("strong", { class: "count" }, counted(one.count, one.unit)), " ",
        h("span", null, t(`funnel.stage.${one.key}`)),
        rateOf(one)),
      bar,
      chips.length > 0 && h("ul", { class: "chips" }, chips.map(([chip, sign]) => explained(one.key, chip, sign, { open, reasons, extra }))));
  };
  return h("ol", { class: "funnel" }, stages.map(stage));
};

const rateOf = ({ key, rate }) =>
  ["addressable", "known"].includes(key) && h("span", { class: "soft rate" }, t(`funnel.rate.${key}`, { rate: percent(rate) }));

/** A drop or a gain as a button that opens its sentence. */
const explained = (stage, chip, sign, { open, reasons, extra }) => {
  const key = `${stage}/${chip.key}`;
  const text = h("div", { class: "why", id: `why-${stage}-${chip.key}`, hidden: !open.has(key) }, meaning(chip, reasons, extra));
  const value = chip.count === null ? "–" : `${chip.count === 0 ? "" : sign}${number(chip.count)}`;
  const button = h("button", {
    type: "button",
    class: chip.count ? "chip" : "chip none",
    "data-focus": key,
    "data-part": chip.key,
    "aria-expanded": String(open.has(key)),
    "aria-controls": text.id,
    onclick: () => {
      const opens = !open.has(key);
      if (opens) open.add(key);
      else open.delete(key);
      text.hidden = !opens;
      button.setAttribute("aria-expanded", String(opens));
    },
  }, h("span", { class: "n" }, value), " ", h("span", null, t(`funnel.part.${chip.key}`)));
  return h("li", null, button, text);
};

/** The same as a table. */
export const funnelTable = (stages) => {
  const rows = stages.flatMap((stage) => [
    { label: t(`funnel.stage.${stage.key}`), unit: stage.unit, count: stage.count, rate: stage.rate },
    ...stage.drops.map((drop) => ({ label: `− ${t(`funnel.part.${drop.key}`)}`, unit: stage.unit, count: drop.count })),
    ...stage.gains.map((gain) => ({ label: `+ ${t(`funnel.part.${gain.key}`)}`, unit: "people", count: gain.count })),
  ]);
  return table(t("funnel.table"), [
    { label: t("funnel.column.what"), head: true, cell: ({ label }) => label },
    { label: t("funnel.column.count"), n: true, cell: ({ count, unit }) => counted(count, unit) },
    { label: t("funnel.column.rate"), n: true, cell: ({ rate }) => (typeof rate === "number" ? percent(rate) : "") },
  ], rows, { unseen: true });
};

/** Most rows of a chart's table: a year and more of hourly rows is no reading. */
const ROWS = 60;

/** Lines over time: a box of fixed height, so that nothing moves when they come. */
export const linePicture = (rows, series, label) => {
  const found = chart(rows, series);
  if (!found) return h("div", { class: "chart none" }, h("p", { class: "soft" }, t("chart.none")));
  const legend = h("ul", { class: "legend" }, series.map((key, n) => h("li", null,
    svg("svg", { viewBox: "0 0 30 10", class: `key line-${n}`, "aria-hidden": "true" }, svg("path", { d: "M0 5H30" })),
    t(`chart.${key}`))));
  const plot = svg("svg", { viewBox: "0 -4 1000 208", preserveAspectRatio: "none", class: "plot", role: "img", "aria-label": label },
    [0, 100, 200].map((y) => svg("path", { class: "grid-line", d: `M0 ${y}H1000` })),
    found.lines.map(({ path }, n) => path && svg("path", { class: `line-${n}`, d: path })));
  return h("div", { class: "chart" }, legend,
    h("div", { class: "axes" }, h("span", { class: "most" }, number(found.most)), h("span", { class: "least" }, number(0)), plot,
      h("span", { class: "from" }, date(found.from)), h("span", { class: "to" }, date(found.to))));
};

/** The same as a table, the newest first. */
export const lineTable = (rows, series, label) =>
  table(label, [
    { label: t("chart.at"), head: true, cell: ({ at }) => date(at) },
    ...series.map((key) => ({ label: t(`chart.${key}`), n: true, cell: (row) => number(row[key]) })),
  ], thinned(rows, ROWS).toReversed(), { unseen: true });
