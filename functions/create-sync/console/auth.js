// Who uses the console: OpenID Connect, authorization code with PKCE. Without an authority it is open, as the local
// stack is.
//
// The token stands in sessionStorage: gone with the tab, and no other site's page reads it. There is no refresh token:
// a token that has run out leads to the issuer again, which answers at once while its own session lasts.

import { h } from "./dom.js";
import { t } from "./words.js";

/** Under these names in sessionStorage: the tokens, a sign-in that is under way, and that somebody has signed out. */
const SESSION = "auth.session";
const PENDING = "auth.pending";
const LEFT = "auth.left";
/** A token that has no more than this left is not used any more, in ms. */
const MARGIN = 10_000;

let config = null;
let session = null;
let me = null;

const here = () => `${location.origin}/`;

const base64url = (bytes) =>
  btoa(String.fromCharCode(...new Uint8Array(bytes))).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));
const digest = (text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));

/** The claims of a token; null: it is opaque. Who trusts them has them from the issuer itself, over its connection. */
const claimsOf = (token) => {
  try {
    const bytes = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(bytes, (char) => char.charCodeAt(0))));
  } catch {
    return null;
  }
};
const names = (audience, wanted) => [audience].flat().includes(wanted);
const unslashed = (url) => url.replace(/\/$/, "");

const stored = (name) => JSON.parse(sessionStorage.getItem(name) ?? "null");

/** Something that ends a sign-in, as a key of the catalogue. */
class Stop extends Error {
  constructor(key, params) {
    super(key);
    Object.assign(this, { key, params });
  }
}

/** What the issuer says of itself. */
const discover = async () => {
  const authority = unslashed(config.authority);
  let found;
  try {
    const response = await fetch(`${authority}/.well-known/openid-configuration`);
    if (!response.ok) throw new Error(String(response.status));
    found = await response.json();
  } catch {
    throw new Stop("auth.unreachable", { authority });
  }
  if (unslashed(found.issuer ?? "") !== authority) throw new Stop("auth.foreign", { authority });
  return found;
};

/** Goes to the issuer; comes back to the same page of the console. Ends with this page. */
const signIn = async () => {
  const found = await discover();
  const pending = { state: random(), nonce: random(), verifier: random(), hash: location.hash };
  sessionStorage.removeItem(LEFT);
  sessionStorage.removeItem(SESSION);
  sessionStorage.setItem(PENDING, JSON.stringify(pending));
  const url = new URL(found.authorization_endpoint);
  const parameters = {
    response_type: "code",
    client_id: config.client_id,
    redirect_uri: here(),
    scope: config.scope,
    state: pending.state,
    nonce: pending.nonce,
    code_challenge: base64url(await digest(pending.verifier)),
    code_challenge_method: "S256",
  };
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  location.assign(url);
  await new Promise(() => {});
};

/** Takes what the issuer has sent the browser back with. */
const comeBack = async (query) => {
  const pending = stored(PENDING);
  // Used once, whatever comes of it.
  sessionStorage.removeItem(PENDING);
  history.replaceState(null, "", `${location.pathname}${pending?.hash ?? ""}`);
  if (!pending || query.get("state") !== pending.state) throw new Stop("auth.stale");
  if (query.has("error")) throw new Stop("auth.refused", { reason: query.get("error_description") ?? query.get("error") });
  const found = await discover();
  // RFC 9207: an issuer that names itself must be ours.
  if (query.has("iss") && query.get("iss") !== found.issuer) throw new Stop("auth.foreign", { authority: config.authority });
  const body = new URLSearchParams({
    grant_type: "authorization_code",
    code: query.get("code"),
    redirect_uri: here(),
    client_id: config.client_id,
    code_verifier: pending.verifier,
  });
  const began = Date.now();
  let tokens;
  try {
    const response = await fetch(found.token_endpoint, { method: "POST", body });
    tokens = await response.json();
    if (!response.ok) throw new Stop("auth.refused", { reason: tokens.error_description ?? tokens.error ?? response.status });
  } catch (error) {
    throw error instanceof Stop ? error : new Stop("auth.unreachable", { authority: unslashed(config.authority) });
  }
  const id = claimsOf(tokens.id_token ?? "");
  const good = id && id.iss === found.issuer && names(id.aud, config.client_id) && id.nonce === pending.nonce;
  if (!good || id.exp * 1000 < began) throw new Stop("auth.wrong_token");
  // The API's authorizer asks for this audience, or, where a token names none, for this client. Where the access token is
  // for somebody else, or opaque, it is the ID token that fits.
  const access = claimsOf(tokens.access_token ?? "");
  const fits = access && names(access.aud ?? access.client_id, config.audience);
  const [token, claims] = fits ? [tokens.access_token, access] : [tokens.id_token, id];
  const name = id.name ?? id.email ?? id.preferred_username ?? id["cognito:username"] ?? id.sub;
  // By this machine's clock, which may differ from the issuer's.
  const until = began + (claims.exp - (claims.iat ?? Math.floor(began / 1000))) * 1000;
  session = { token, name, until };
  sessionStorage.setItem(SESSION, JSON.stringify(session));
};

/** Says why nobody is signed in, with a way to try (again), and stays there. */
const stay = (key, params, leave) => {
  const again = h("button", { type: "button", class: "main", onclick: () => attempt(leave ?? signIn) }, t(leave ? "base.sign_out" : "auth.sign_in"));
  // The frame round the pages comes once somebody is there.
  document.body.replaceChildren(
    h("main", { id: "main" }, h("h1", null, t("auth.title")), h("p", { role: "status" }, t(key, params)), h("p", null, again)),
  );
  document.title = `${t("auth.title")} · ${t("base.product")}`;
  return new Promise(() => {});
};

const attempt = async (step) => {
  try {
    return await step();
  } catch (error) {
    if (error instanceof Stop) return stay(error.key, error.params);
    throw error;
  }
};

const enter = async () => {
  const query = new URLSearchParams(location.search);
  if (query.has("state") && (query.has("code") || query.has("error"))) await comeBack(query);
  session ??= stored(SESSION);
  if (sessionStorage.getItem(LEFT)) return stay("auth.left");
  if (!token()) return signIn();
  const answer = await fetch("/me", { headers: { authorization: `Bearer ${session.token}` } });
  // The token was taken back, or is for another API: somebody decides to try again, so that no loop comes of it.
  if (answer.status === 401) throw new Stop("auth.not_taken");
  if (answer.status === 403) return stay("auth.no_role", { name: session.name }, signOut);
  if (!answer.ok) {
    const { detail = "", code, values } = (await answer.json().catch(() => null)) ?? {};
    throw Object.assign(new Error(detail), { status: answer.status, code, values });
  }
  me = { ...(await answer.json()), name: session.name };
};

/** Resolves when it is known who is there. Where somebody must sign in first it does not, and the browser goes there. */
export const ready = async () => {
  const response = await fetch("/console/config");
  if (!response.ok) throw Object.assign(new Error(t("auth.no_config")), { status: response.status });
  config = (await response.json()).auth;
  if (config) await attempt(enter);
};

/** The token for the API; null: the console is open. One that has run out is replaced at the issuer's. */
export const token = () => {
  if (!config || !session) return null;
  if (Date.now() < session.until - MARGIN) return session.token;
  session = null;
  if (me) attempt(signIn);
  return null;
};

/** Who is there: `{name, role}`. */
export const user = () => (config ? me : { name: "", role: "operator" });

/** Signs out here and, where it offers that, at the issuer. */
export const signOut = async () => {
  sessionStorage.removeItem(SESSION);
  sessionStorage.setItem(LEFT, "yes");
  session = null;
  me = null;
  const end = await discover().then((found) => found.end_session_endpoint, () => null);
  const url = new URL(end ?? here());
  if (end) {
    // The standard's name of the way back, and Cognito's.
    const parameters = { client_id: config.client_id, post_logout_redirect_uri: here(), logout_uri: here() };
    for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  }
  location.assign(url);
};
