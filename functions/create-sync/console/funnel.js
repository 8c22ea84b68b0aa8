// What becomes of an audience, stage by stage, from a sync's report. Each stage less its drops and with its gains is the
// next one, exactly: a test adds them up. Nothing here touches the page.

/** Adds up; what is not known counts as nothing. */
const sum = (parts) => parts.reduce((total, { count }) => total + (count ?? 0), 0);

/**
 * The stages of a report, the widest first. A count is null where it is not known yet.
 * @param report the answer of GET /syncs/{id}/report; null: there is none yet
 * @param reportOnly whether the sync touches no list
 */
export function funnel(report, reportOnly = false) {
  const known = report && report.delivered !== false;
  const number = (value) => (known && typeof value === "number" ? value : null);
  const count = (key) => number(report?.[key]);
  const part = (key, value, more = {}) => ({ key, count: value, ...more });
  const members = known ? report.members : null;
  const member = (key) => number(members?.[key]);
  const codes = Object.entries((known && report.failed) || {}).map(([code, many]) => ({ code, count: many }));
  // One person often has several browsers, and now and then several people share one: only the balance is known.
  const balance = known ? report.known - report.people : null;
  const stages = [
    { key: "audience", unit: "browsers", count: count("audience"), drops: [part("no_match", count("no_match"))] },
    {
      key: "addressable",
      unit: "browsers",
      count: count("addressable"),
      rate: rate(count("addressable"), count("audience")),
      drops: [part("set_aside", count("set_aside")), part("anonymous", count("anonymous"))],
    },
    {
      key: "known",
      unit: "browsers",
      count: count("known"),
      rate: rate(count("known"), count("addressable")),
      drops: balance < 0 ? [] : [part("several_browsers", balance)],
      gains: balance < 0 ? [part("shared_browsers", -balance)] : [],
    },
    {
      key: "people",
      unit: "people",
      count: count("people"),
      drops: [
        part("before_us", number(report?.in_list?.before_us)),
        part(reportOnly ? "would_be_added" : "waiting", count("waiting")),
        part("kept_out", count("kept_out")),
        part("dropped", count("dropped")),
        part("refused", known ? sum(codes) : null, { codes: codes.filter((one) => one.count > 0) }),
      ],
    },
    {
      key: "ours",
      unit: "people",
      count: number(report?.in_list?.ours),
      gains: [
        part("before_us_too", member("in_audience_before_us")),
        part("before_us_only", member("before_us_only")),
        part("by_another_sync", member("by_another_sync")),
        part("waiting_to_leave", member("waiting_to_leave")),
        part("kept", member("kept")),
      ],
    },
    { key: "members", unit: "people", count: count("members_in_marketo") },
  ];
  return stages.map((stage) => ({ rate: null, drops: [], gains: [], ...stage }));
}

/** A share of something; null where that is nothing, or not known. */
function rate(part, whole) {
  return part === null || !whole ? null : part / whole;
}

/** Whether each stage follows from the one before, wherever both are known. */
export function addsUp(stages) {
  return stages.slice(1).every((stage, n) => {
    const before = stages[n];
    if (stage.count === null || before.count === null) return true;
    return before.count - sum(before.drops) + sum(before.gains) === stage.count;
  });
}

/** Of each stage: the share of the widest one, from 0 to 1. */
export function widths(stages) {
  const widest = Math.max(1, ...stages.map(({ count }) => count ?? 0));
  return stages.map(({ count }) => (count ?? 0) / widest);
}
