//! Sizes and duplicates of what leaves.

use domain::Token;
use domain::cookie::MAX_TOKEN;
use domain::limits::MARKETO_BATCH;
use futures::executor::block_on;

use crate::support::{LIST, Sent, World};

/// Marketo's limits, in bytes: of an address on the lead database, and of a body.
const LINE: usize = 8 * 1024;
const BODY: usize = 1024 * 1024;

fn longest_token(n: usize) -> Token {
    let end = format!("-1700000000000-{n:05}");
    let domain = "d".repeat(MAX_TOKEN - "_mch-".len() - end.len());
    let token = Token::parse(&format!("_mch-{domain}{end}")).expect("a token");
    assert_eq!(token.as_str().len(), MAX_TOKEN);
    token
}

fn last(world: &World) -> Sent {
    world.sent().pop().expect("a request")
}

#[test]
fn three_hundred_of_the_longest_values_fit() {
    let world = World::new();
    let tokens: Vec<Token> = (0..MARKETO_BATCH).map(longest_token).collect();
    let ids: Vec<u64> = (0..MARKETO_BATCH as u64).map(|n| u64::MAX - n).collect();
    let client = world.client();
    let mut sent = Vec::new();
    let nothing = r#"{"requestId":"r","success":true,"result":[]}"#;
    let mut keep = |world: &World| sent.push(last(world));
    world.say(200, nothing);
    block_on(client.leads_by_cookies(world.slot(), &tokens.iter().collect::<Vec<_>>())).expect("an answer");
    keep(&world);
    world.say(200, nothing);
    block_on(client.leads_by_id(world.slot(), &ids, true)).expect("an answer");
    keep(&world);
    world.say(200, nothing);
    block_on(client.add(world.slot(), LIST, &ids)).expect("an answer");
    keep(&world);
    world.say(200, nothing);
    block_on(client.remove(world.slot(), LIST, &ids)).expect("an answer");
    keep(&world);
    world.say(200, nothing);
    block_on(client.membership(world.slot(), LIST, &ids)).expect("an answer");
    keep(&world);
    for request in &sent {
        let line = format!("{} {} HTTP/1.1", request.method, request.uri);
        assert!(line.len() <= LINE, "{} bytes: {}", line.len(), &line[..60]);
        assert!(request.body.len() <= BODY, "{} bytes", request.body.len());
    }
    let lookup = String::from_utf8(sent[0].body.clone()).expect("text");
    assert_eq!((lookup.matches("_mch-").count(), sent[0].uri.contains("_mch-")), (MARKETO_BATCH, false));
}

#[test]
fn the_double_takes_three_hundred_cookies_at_once() {
    let world = World::new();
    let tokens: Vec<Token> =
        (0..MARKETO_BATCH).map(|n| Token::parse(&format!("_mch-a.com-1700000000000-{n}")).expect("a token")).collect();
    world.double().fill_form(world.now(), tokens[7].as_str(), "a@example.com");
    let rows = block_on(world.client().leads_by_cookies(world.slot(), &tokens.iter().collect::<Vec<_>>()));
    let rows = rows.expect("an answer");
    assert_eq!(rows.len(), 1);
    assert!(rows[0].known && rows[0].cookies.contains(&tokens[7]));
}

#[test]
fn each_value_is_sent_once() {
    let world = World::new();
    let client = world.client();
    let token = Token::parse("_mch-a.com-1700000000000-1").expect("a token");
    let text = |request: Sent| request.uri + &String::from_utf8_lossy(&request.body);
    block_on(client.add(world.slot(), LIST, &[3, 4, 3])).expect("an answer");
    assert!(text(last(&world)).ends_with(r#"{"input":[{"id":3},{"id":4}]}"#));
    block_on(client.remove(world.slot(), LIST, &[4, 3, 4])).expect("an answer");
    assert!(text(last(&world)).ends_with("?id=3,4"));
    block_on(client.membership(world.slot(), LIST, &[1, 1])).expect("an answer");
    assert!(text(last(&world)).ends_with("?id=1"));
    block_on(client.leads_by_id(world.slot(), &[1, 1], false)).expect("an answer");
    assert!(text(last(&world)).contains("filterValues=1&"));
    block_on(client.leads_by_cookies(world.slot(), &[&token, &token])).expect("an answer");
    assert_eq!(text(last(&world)).matches("_mch-").count(), 1);
}
