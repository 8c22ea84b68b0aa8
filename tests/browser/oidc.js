// An issuer for the tests: discovery, authorization code with PKCE, RS256. It asks nobody for a password: `who` is
// signed in.

import { createHash, createVerify, createSign, generateKeyPairSync, randomUUID } from "node:crypto";

import { listen } from "./servers.js";

const KID = "one";
/** Seconds that a token lasts. */
const LIFETIME = 3600;
const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const decode = (text) => JSON.parse(Buffer.from(text, "base64url").toString());

/** Starts it. `flavour` is "cognito" (access tokens name a client and no audience) or "opaque" (they are no tokens). */
export async function startIssuer({ clientId, flavour = "cognito" }) {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const codes = new Map();
  const requests = [];
  const issuer = {
    who: null,
    /** What it calls itself, if not by its address. */
    says: null,
    /** Changes claims of ID tokens, to make wrong ones. */
    twist: (claims) => claims,
    requests,
  };
  const sign = (claims) => {
    const head = `${encode({ alg: "RS256", typ: "JWT", kid: KID })}.${encode(claims)}`;
    return `${head}.${createSign("RSA-SHA256").update(head).sign(privateKey, "base64url")}`;
  };
  const answer = (response, status, body) => {
    response.writeHead(status, { "content-type": "application/json", "access-control-allow-origin": "*" });
    response.end(JSON.stringify(body));
  };
  const back = (response, url, parameters) => {
    const target = new URL(url);
    for (const [name, value] of Object.entries(parameters)) target.searchParams.set(name, value);
    response.writeHead(302, { location: target.href }).end();
  };

  const token = (form, response) => {
    const code = codes.get(form.get("code"));
    codes.delete(form.get("code"));
    const challenge = createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url");
    const asked = code && ["client_id", "redirect_uri"].every((name) => form.get(name) === code.query.get(name));
    if (!asked || form.get("grant_type") !== "authorization_code" || challenge !== code.query.get("code_challenge"))
      return answer(response, 400, { error: "invalid_grant" });
    const iat = Math.floor(Date.now() / 1000);
    const times = { iat, exp: iat + LIFETIME };
    const { sub, name, groups } = code.who;
    const claims = { iss: issuer.url, sub, ...times, ...(groups && { "cognito:groups": groups }) };
    const id = { ...claims, aud: clientId, nonce: code.query.get("nonce"), name, token_use: "id" };
    const access =
      flavour === "opaque" ? randomUUID() : sign({ ...claims, client_id: clientId, token_use: "access", scope: "openid" });
    answer(response, 200, { id_token: sign(issuer.twist(id)), access_token: access, token_type: "Bearer" });
  };

  const server = await listen((request, response) => {
    const url = new URL(request.url, issuer.url);
    requests.push({ method: request.method, path: url.pathname, query: url.searchParams });
    if (url.pathname === "/.well-known/openid-configuration") {
      answer(response, 200, {
        issuer: issuer.says ?? issuer.url,
        authorization_endpoint: `${issuer.url}/authorize`,
        token_endpoint: `${issuer.url}/token`,
        jwks_uri: `${issuer.url}/jwks`,
        ...(flavour === "cognito" && { end_session_endpoint: `${issuer.url}/logout` }),
      });
    } else if (url.pathname === "/authorize") {
      const query = url.searchParams;
      const state = query.get("state");
      if (!issuer.who) return back(response, query.get("redirect_uri"), { error: "access_denied", state });
      const code = randomUUID();
      codes.set(code, { query, who: issuer.who });
      back(response, query.get("redirect_uri"), { code, state });
    } else if (url.pathname === "/token") {
      const chunks = [];
      request.on("data", (chunk) => chunks.push(chunk));
      request.on("end", () => token(new URLSearchParams(Buffer.concat(chunks).toString()), response));
    } else if (url.pathname === "/logout") {
      back(response, url.searchParams.get("logout_uri"), {});
    } else {
      response.writeHead(404).end();
    }
  });
  issuer.url = `http://127.0.0.1:${server.port}`;
  issuer.close = server.close;
  /** The claims of a token as API Gateway's JWT authorizer lets it pass; null: it does not. */
  issuer.authorize = (header) => {
    const [head, body, signature] = (header ?? "").replace(/^Bearer /, "").split(".");
    if (!signature || decode(head).alg !== "RS256") return null;
    if (!createVerify("RSA-SHA256").update(`${head}.${body}`).verify(publicKey, signature, "base64url")) return null;
    const claims = decode(body);
    const now = Date.now() / 1000;
    const fits = claims.iss === issuer.url && (claims.aud ?? claims.client_id) === clientId;
    return fits && claims.exp > now ? claims : null;
  };
  return issuer;
}
