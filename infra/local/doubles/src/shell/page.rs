//! The frame of the doubles' pages. No scripts, nothing from elsewhere.

use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

const CSS: &str = "\
:root{color-scheme:light dark;--line:#8884;--soft:#8881}\
body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:2rem 0 .5rem}p{margin:.3rem 0}\
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}code{font-size:.85em;overflow-wrap:anywhere}\
form{display:inline-flex;gap:.4rem;margin:0;flex-wrap:wrap}input,button{font:inherit;padding:.15rem .5rem}\
.said{background:var(--soft);border:1px solid var(--line);padding:.4rem .7rem;border-radius:.4rem}";

/// Text that is safe between tags and within quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page; `title` and `said` are plain text, `body` is HTML. `said` is what the last button did.
pub(super) fn page(title: &str, said: Option<&str>, body: &str) -> Response {
    let title = escape(title);
    let said = said.map(|said| format!("<p class=said role=status>{}</p>", escape(said))).unwrap_or_default();
    let html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>{title}</title><link rel=icon href=\"data:,\"><style>{CSS}</style><h1>{title}</h1>{said}{body}</html>"
    );
    let mut response = Html(html).into_response();
    let policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; \
                  base-uri 'none'; frame-ancestors 'none'";
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Back to the page, which then says what was done.
pub(super) fn back(said: &str) -> Response {
    let query: String = form_urlencoded::Serializer::new(String::new()).append_pair("said", said).finish();
    Redirect::to(&format!("/_control/?{query}")).into_response()
}

/// 12345 as 12,345.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
