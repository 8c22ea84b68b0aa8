//! A function that does what its event says. Only this crate's tests run it.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Error> {
    if std::env::var("FAIL_INIT").is_ok() {
        return Err("will not start".into());
    }
    lambda_runtime::run(service_fn(handle)).await
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let (event, context) = event.into_parts();
    if let Some(records) = event.get("Records").and_then(Value::as_array) {
        let mut failed = vec![];
        for record in records {
            let body = record.get("body").and_then(Value::as_str).unwrap_or_default();
            note(&format!("message {body}"));
            if serde_json::from_str(body).is_ok_and(|command: Value| obey(&command).is_err()) {
                failed.push(json!({ "itemIdentifier": record["messageId"] }));
            }
        }
        return Ok(json!({ "batchItemFailures": failed }));
    }
    if let Some(kind) = event.get("detail-type") {
        note(&format!("scheduled {kind} {}", event["source"]));
        return Ok(Value::Null);
    }
    if let Some(command) = event.pointer("/queryStringParameters/do") {
        obey(&json!({ "do": command }))?;
        if command == "answer" {
            return Ok(json!({
                "statusCode": 201,
                "headers": { "x-made": "yes" },
                "cookies": ["a=1", "b=2"],
                "body": "aGk=",
                "isBase64Encoded": true,
            }));
        }
        if command == "refuse" {
            return Ok(json!({ "statusCode": 422 }));
        }
        if command == "large" {
            return Ok(json!({ "statusCode": 200, "body": "x".repeat(6 * 1024 * 1024) }));
        }
    }
    obey(&event)?;
    let left_ms = context.deadline.saturating_sub(event.get("now_ms").and_then(Value::as_u64).unwrap_or_default());
    Ok(json!({
        "event": event,
        "left_ms": left_ms,
        "pid": std::process::id(),
        "environment": std::env::vars().collect::<std::collections::BTreeMap<_, _>>(),
    }))
}

fn obey(command: &Value) -> Result<(), Error> {
    match command.get("do").and_then(Value::as_str) {
        Some("fail") => Err("as told".into()),
        Some("panic") => panic!("as told"),
        Some("crash") => std::process::exit(7),
        Some("hang") => {
            note("hanging");
            loop {
                std::thread::park();
            }
        }
        _ => Ok(()),
    }
}

#[expect(clippy::print_stdout, reason = "standard output is the function's log")]
fn note(text: &str) {
    println!("{text}");
}
