// Which rows of the set-up check will hurt a sync that is being made.

/** Where nothing has been declared, files are Audience Manager's: the API says so too. */
const DEFAULT = { id: "default", kind: "aam-files" };

const always = () => true;
/** What only makes audiences easier to find: this one is found. */
const never = () => false;
/** Of that source's audiences alone. */
const of = (source) => (choice) => choice.source === source;
const writes = ({ start }) => start !== "report_only";

/** The feed that a row is about. */
const feedOf = ({ values }, feeds) => {
  const id = values?.feed ?? DEFAULT.id;
  return feeds.find((feed) => feed.id === id) ?? (id === DEFAULT.id ? DEFAULT : null);
};

/** Whether the feed of a row can bring the audience. Where files have named it already, files that have not bring others. */
const brings = ({ audience, source, feeds }, row) => {
  const names = (feed) => Boolean(feed.came?.named?.[audience]);
  const feed = feedOf(row, feeds);
  // What is not known may hurt.
  if (!feed) return true;
  if (!feed.kind.startsWith(`${source}-`)) return false;
  return feed.kind.endsWith("-stream") || names(feed) || !feeds.some(names);
};

/** Which sync each row hurts, by its code. A test compares the codes with those of the check. */
export const MATTERS = {
  subscription: always,
  hipaa: always,
  ims_organisation: always,
  cookie_sync: always,
  marketo_credentials: always,
  marketo_ip_allowlist: always,
  marketo_read_lead: always,
  marketo_read_write_lead: writes,
  marketo_read_activity: always,
  marketo_read_asset: always,
  // Only a list that we make needs it.
  marketo_read_write_asset: (choice) => writes(choice) && !choice.list?.id,
  marketo_quota: always,
  marketo_ecids: always,
  adobe_credentials: always,
  audience_manager_library: of("aam"),
  experience_platform_library: of("aep"),
  experience_platform_folders: never,
  // Streams do without it.
  bucket: ({ source, feeds }) => {
    const ours = feeds.filter(({ kind }) => kind.startsWith(`${source}-`));
    return ours.length === 0 || ours.some(({ kind }) => kind.endsWith("-files"));
  },
  last_file: brings,
  id_type: brings,
  snapshot: brings,
  stream: brings,
  tag_seen: always,
  tag_cookies: always,
};

/**
 * Whether a row hurts a sync of these choices: {audience, list, start, feeds}. A code that is not known here does: better
 * one row too many.
 */
export const matters = (row, { audience, list, start, feeds }) => {
  const choice = { audience, source: audience.split(":")[0], list, start, feeds: feeds ?? [] };
  return row.status === "not_ok" && (MATTERS[row.code] ?? always)(choice, row);
};
