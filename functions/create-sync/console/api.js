// The documented API, and nothing else of the server.

import * as auth from "./auth.js";
import { remembered } from "./words.js";

/** Where the chosen subscription is remembered. */
export const MUNCHKIN = "munchkin_id";

/** What the API refused: problem details, RFC 9457. */
export class Problem extends Error {
  constructor(status, body) {
    super(body?.detail ?? body?.title ?? `HTTP ${status}`);
    this.name = "Problem";
    this.status = status;
    this.body = body ?? {};
    this.detail = this.message;
    this.code = body?.code;
    this.values = body?.values;
    this.errors = body?.errors ?? [];
    this.retryAfter = null;
  }
}

const address = (path) => {
  const url = new URL(path, location.origin);
  const munchkin = remembered(MUNCHKIN);
  if (munchkin && !url.searchParams.has(MUNCHKIN)) url.searchParams.set(MUNCHKIN, munchkin);
  return url;
};

/** Sends a request; answers the response, its text and its JSON. */
export const send = async (method, path, { body, headers, signal } = {}) => {
  const all = { accept: "application/json", ...headers };
  if (body !== undefined) all["content-type"] = "application/json";
  const token = auth.token();
  if (token) all.authorization = `Bearer ${token}`;
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await fetch(address(path), { method, headers: all, body: text, signal });
  const answer = await response.text();
  let json = null;
  try {
    json = answer ? JSON.parse(answer) : null;
  } catch {
    // A proxy's page: its status says enough.
  }
  if (!response.ok) {
    const problem = new Problem(response.status, json);
    problem.retryAfter = Number(response.headers.get("retry-after")) || null;
    throw problem;
  }
  return { response, json, text: answer };
};

export const get = async (path, { signal } = {}) => (await send("GET", path, { signal })).json;

/** One page of a list; `next` is the path of the next one, or null. */
export const getPage = async (path, { signal } = {}) => {
  const { response, json } = await send("GET", path, { signal });
  const next = /<([^>]*)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "")?.[1] ?? null;
  return { rows: json, next };
};

/** All pages of a list that is not long. */
export const getAll = async (path, { signal } = {}) => {
  const rows = [];
  for (let next = path; next; ) {
    const page = await getPage(next, { signal });
    rows.push(...page.rows);
    next = page.next;
  }
  return rows;
};

export const post = async (path, body = {}, { headers, signal } = {}) =>
  (await send("POST", path, { body, headers, signal })).json;

export const put = async (path, body, { signal } = {}) => (await send("PUT", path, { body, signal })).json;
