//! `cargo run -- check`: asks a running deployment what is set up and what is not, and prints it row by row.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use serde_json::Value;

use crate::args::Check;

/// How long the answer may take: the API's own time-out is 30 s.
const TIMEOUT: Duration = Duration::from_secs(35);
/// Something is not as it must be.
const NOT_OK: u8 = 1;
/// The deployment could not be asked.
const NOT_ASKED: u8 = 2;
/// Columns of text before a line is broken. Ours.
const WIDTH: usize = 100;

/// Asks, prints, and says by the exit code how it is.
pub(crate) async fn run(check: &Check) -> ExitCode {
    match ask(check).await {
        Ok(answer) => {
            let (text, failing) = shown(&answer);
            // Nobody reads a closed terminal; the exit code says the same.
            std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes()).ok();
            if failing > 0 { ExitCode::from(NOT_OK) } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            std::io::Write::write_all(&mut std::io::stderr(), format!("error: {error}\n").as_bytes()).ok();
            ExitCode::from(NOT_ASKED)
        }
    }
}

/// `GET /setup`, or why there is no answer. No error holds the token.
async fn ask(check: &Check) -> Result<Value, String> {
    let url = check.url.trim_end_matches('/');
    let mut client = reqwest::Client::builder().timeout(TIMEOUT);
    if ["://127.0.0.1", "://localhost", "://[::1]"].iter().any(|here| url.contains(here)) {
        // A proxy of the environment does not see this machine.
        client = client.no_proxy();
    }
    let client = client.build().map_err(|_| "the HTTP client".to_owned())?;
    let mut request = client.get(format!("{url}/setup?fresh=1{}", check.subscription()));
    if let Some(token) = &check.token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = request.send().await.map_err(|error| {
        let why = if error.is_timeout() {
            "did not answer in time"
        } else if error.is_builder() {
            "is no address, or the token holds what no header may"
        } else {
            "does not answer: is it running?"
        };
        format!("{url} {why}")
    })?;
    let status = response.status().as_u16();
    let body = response.bytes().await.map_err(|_| format!("{url} broke off its answer"))?;
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match status {
        200 if body["rows"].is_array() => Ok(body),
        200 => Err(format!("{url} answers, and is no audience-sync of this version")),
        401 | 403 => Err(format!("{url} answers {status}: give a token with --token or AUDIENCE_SYNC_TOKEN")),
        _ => {
            let detail = body["detail"].as_str().or(body["message"].as_str()).unwrap_or("no reason given");
            Err(format!("{url} answers {status}: {detail}"))
        }
    }
}

/// The rows as text, and how many are not as they must be.
fn shown(answer: &Value) -> (String, usize) {
    let (mut text, mut failing) = (String::new(), 0);
    let mut counts = [("ok", 0), ("not_ok", 0), ("not_seen_yet", 0), ("not_used", 0)];
    for row in answer["rows"].as_array().into_iter().flatten() {
        let said = |member: &str| row[member].as_str().unwrap_or_default();
        let status = said("status");
        for (name, count) in &mut counts {
            *count += usize::from(*name == status);
        }
        // A status of a later version is no good news.
        let is_known = counts.iter().any(|(name, _)| *name == status);
        let fails = status == "not_ok" || !is_known;
        failing += usize::from(fails);
        let feed = row["values"]["feed"].as_str().map(|feed| format!(" ({feed})")).unwrap_or_default();
        writeln!(text, "{:<14}{}{feed}", word(status), plain(said("title"))).ok();
        let mut lines = vec![("tried", said("tried")), ("means", said("means"))];
        if status != "ok" && status != "not_used" {
            lines.extend([("who", said("who")), ("where", said("where"))]);
        }
        for (name, said) in lines {
            for (at, line) in broken(&plain(said)).iter().enumerate() {
                let name = if at == 0 { format!("{name}:") } else { String::new() };
                writeln!(text, "{:<14}{name:<7}{line}", "").ok();
            }
        }
    }
    let [(_, ok), _, (_, not_seen), (_, not_used)] = counts;
    writeln!(text, "\n{ok} ok, {failing} not ok, {not_seen} not seen yet, {not_used} not used").ok();
    (text, failing)
}

fn word(status: &str) -> &str {
    match status {
        "ok" => "ok",
        "not_ok" => "NOT OK",
        "not_seen_yet" => "not seen yet",
        "not_used" => "not used",
        other => other,
    }
}

/// What a terminal would act upon is left out: names come from elsewhere.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Lines of at most [`WIDTH`] characters, broken between words.
fn broken(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::get;
    use serde_json::json;

    use super::*;

    fn row(status: &str, title: &str) -> Value {
        json!({"code": "x", "area": "marketo", "status": status, "title": title, "tried": "a call", "means": "It means so.",
            "who": "Marketo administrator", "where": "Admin > Roles", "values": {}})
    }

    /// A server that answers so, and refuses whoever does not bear this token.
    async fn server(status: u16, body: Value, token: Option<&'static str>) -> String {
        let answer = move |headers: HeaderMap| async move {
            let bears = token.is_none_or(|token| {
                headers.get("authorization").is_some_and(|sent| sent == format!("Bearer {token}").as_str())
            });
            let status = if bears { status } else { 401 };
            (StatusCode::from_u16(status).expect("a status"), axum::Json(body))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().route("/setup", get(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn check(url: &str, token: Option<&str>) -> Check {
        Check { url: url.to_owned(), token: token.map(str::to_owned), munchkin_id: None }
    }

    async fn code(check: &Check) -> String {
        format!("{:?}", run(check).await)
    }

    #[test]
    fn rows_stand_under_each_other_and_say_who_mends_what_is_wrong() {
        let mut feed = row("not_seen_yet", "Last file");
        feed["values"]["feed"] = json!("daily\u{1b}[2J");
        let answer = json!({"rows": [row("ok", "HIPAA mark"), row("not_ok", "Field ecids"), feed]});
        let (text, failing) = shown(&answer);
        assert_eq!(failing, 1);
        assert_eq!(
            text.lines().take(7).collect::<Vec<_>>(),
            [
                "ok            HIPAA mark",
                "              tried: a call",
                "              means: It means so.",
                "NOT OK        Field ecids",
                "              tried: a call",
                "              means: It means so.",
                "              who:   Marketo administrator",
            ]
        );
        assert!(text.ends_with("\n1 ok, 1 not ok, 1 not seen yet, 0 not used\n"), "{text}");
        assert_eq!(shown(&json!({"rows": [row("pondering", "?")]})).1, 1);
    }

    #[test]
    fn long_sentences_are_broken_between_words() {
        let text = "word ".repeat(50);
        let lines = broken(&text);
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.join(" "), text.trim());
    }

    #[tokio::test]
    async fn the_exit_code_says_how_it_is() {
        let all_well = json!({"rows": [row("ok", "a"), row("not_seen_yet", "b"), row("not_used", "c")]});
        let url = server(200, all_well.clone(), None).await;
        assert_eq!(code(&check(&format!("{url}/"), None)).await, format!("{:?}", ExitCode::SUCCESS));
        let url = server(200, json!({"rows": [row("ok", "a"), row("not_ok", "b")]}), None).await;
        assert_eq!(code(&check(&url, None)).await, format!("{:?}", ExitCode::from(NOT_OK)));

        let url = server(200, all_well, Some("secret-token")).await;
        assert_eq!(code(&check(&url, Some("secret-token"))).await, format!("{:?}", ExitCode::SUCCESS));
        for token in [None, Some("other-token")] {
            let error = ask(&check(&url, token)).await.expect_err("refused");
            assert!(error.contains("AUDIENCE_SYNC_TOKEN") && !error.contains("other-token"), "{error}");
            assert_eq!(code(&check(&url, token)).await, format!("{:?}", ExitCode::from(NOT_ASKED)));
        }
        for (status, body) in [(500, json!({"detail": "broken"})), (200, json!({"message": "hello"}))] {
            let url = server(status, body, None).await;
            assert!(ask(&check(&url, None)).await.is_err(), "{status}");
        }
        let error = ask(&check("http://127.0.0.1:1", Some("bad\ntoken"))).await.expect_err("no server");
        assert!(!error.contains("bad"), "{error}");
    }
}
