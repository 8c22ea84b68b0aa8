// The two servers between the browser and the stack: the customer's site, and an edge in front of the API. Both write
// down every request that reaches them.

import http from "node:http";

/** Listens on a free port of the loopback address. */
export async function listen(handle) {
  const server = http.createServer(handle);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  return { port: server.address().port, close };
}

/** The customer's pages: path → {head, body, headers}, and scripts: path → text. */
export async function startSite() {
  const pages = new Map();
  const scripts = new Map();
  const server = await listen((request, response) => {
    const page = pages.get(request.url);
    const script = scripts.get(request.url);
    if (page) {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8", ...page.headers });
      const icon = '<link rel="icon" href="data:,">';
      response.end(`<!doctype html><html lang="en"><head><title>a page</title>${icon}${page.head}</head><body></body></html>`);
    } else if (script) {
      response.writeHead(200, { "content-type": "text/javascript" });
      response.end(script);
    } else {
      response.writeHead(404).end();
    }
  });
  return { ...server, pages, scripts };
}

/** Hands every request on to the API at `url`, as it came. */
export async function startEdge(url) {
  const requests = [];
  const server = await listen((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const body = Buffer.concat(chunks);
      const one = { method: request.method, path: request.url, headers: request.headers, body: body.toString() };
      requests.push(one);
      const { method, headers } = request;
      const onward = http.request(new URL(request.url, url), { method, headers }, (answer) => {
        one.status = answer.statusCode;
        one.answer = answer.headers;
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onward.on("error", () => response.destroy());
      onward.end(body);
    });
  });
  return { ...server, requests };
}
