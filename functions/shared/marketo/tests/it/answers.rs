//! Each row of the table: from the answer to what the client does.

use std::collections::BTreeMap;

use domain::list::Answer as Told;
use doubles::marketo::{Commit, Fault, FaultAnswer, Kind, Which};
use futures::executor::block_on;
use marketo::class::{ANSWERS, Class, LATER_MS, RETRY_DELAYS_MS, Row, TOKEN_REST_MS, class_of_person};
use marketo::{CallError, SEND_WITHIN_MS};
use ports::{Failure, Vendor};

use crate::support::{LIST, START, Said, World, lock};

fn refusal(code: &str) -> String {
    format!(r#"{{"requestId":"r","success":false,"errors":[{{"code":{code},"message":"m"}}]}}"#)
}

/// Every way in which Marketo may say it.
fn said(row: &Row) -> Vec<Said> {
    let answer = |status, body: &str| Said::Answer(status, body.to_owned());
    match row.code {
        "[dropped]" => vec![Said::Dropped],
        "[empty]" => vec![answer(200, "")],
        "[not JSON]" => vec![answer(200, "<html>Sorry</html>"), answer(200, "{\"success\":tr")],
        "[no code]" => {
            let bodies = [r#"{"success":false}"#, r#"{"success":false,"errors":[]}"#, r#"{"requestId":"r"}"#];
            bodies.map(|body| answer(200, body)).to_vec()
        }
        "401" | "413" | "414" | "503" | "504" => vec![answer(row.code.parse().expect("a status"), "<html>")],
        code => {
            let mut all = vec![answer(200, &refusal(code)), answer(200, &refusal(&format!("\"{code}\"")))];
            if code.starts_with('5') {
                all.push(answer(code.parse().expect("a status"), "<html>"));
            }
            all
        }
    }
}

/// What the client did: calls, tokens asked for, time taken, and the error.
fn told(said: Said, writes: bool) -> (usize, usize, u64, CallError) {
    let world = World::new();
    *lock(&world.outside.always) = Some(said);
    let slot = world.slot();
    let error = if writes {
        block_on(world.client().add(slot, LIST, &[3])).expect_err("no success")
    } else {
        block_on(world.client().membership(slot, LIST, &[3])).expect_err("no success")
    };
    let (tokens, calls) = world.counted();
    (calls, tokens, world.now() - START, error)
}

#[test]
fn each_row_of_the_table_is_what_the_client_does() {
    let whole: u64 = RETRY_DELAYS_MS.iter().sum();
    for row in ANSWERS {
        for said in said(row) {
            for writes in [true, false] {
                let (calls, tokens, took, error) = told(said.clone(), writes);
                let what = format!(
                    "{} {said:?} writes: {writes}: {calls} calls, {tokens} tokens, {took} ms, {error:?}",
                    row.code
                );
                let rest = match error {
                    CallError::Wait(until) => Some(until - START - took),
                    _ => None,
                };
                let refused = matches!(&error, CallError::Refused { code, .. } if code == row.code);
                assert!(!refused || error.class() == Some(row.class), "{what}");
                let text = error.to_string();
                let failure = Failure::from(error);
                let outage = matches!(failure, Failure::Outage { .. });
                let expected = match row.class {
                    Class::RetrySoon => (5, 1, whole) == (calls, tokens, took) && rest == Some(LATER_MS),
                    Class::RetryThenAlarm => (5, 1, whole) == (calls, tokens, took) && refused,
                    Class::Later => (1, 1, 0) == (calls, tokens, took) && rest == Some(LATER_MS),
                    Class::NextWindow => (1, 1, 0) == (calls, tokens, took) && rest == Some(20_250),
                    Class::FewerAtOnce => {
                        (1, 1, 0) == (calls, tokens, took) && rest.is_some_and(|ms| (1_000..=2_000).contains(&ms))
                    }
                    // The start is six o'clock in the evening in Chicago.
                    Class::Midnight => (1, 1, 0) == (calls, tokens, took) && rest == Some(6 * 3_600_000),
                    Class::RenewToken => (2, 2, 0) == (calls, tokens, took) && rest == Some(TOKEN_REST_MS),
                    Class::Unknown if writes => calls == 1 && text.contains("unknown"),
                    Class::Unknown => calls == 1 && matches!(failure, Failure::Retry { .. }) && !refused,
                    Class::Split
                    | Class::StopSync
                    | Class::NothingFound
                    | Class::GoWithout
                    | Class::Refuse
                    | Class::OurMistake
                    | Class::Alarm => (1, 1, 0) == (calls, tokens, took) && refused,
                    // Of one person only.
                    Class::DropPerson | Class::Done => false,
                };
                assert!(expected, "{what}");
                assert_eq!(outage, matches!(row.class, Class::Alarm | Class::RetryThenAlarm), "{what}");
            }
        }
    }
}

#[test]
fn a_code_that_nobody_documented_leaves_a_writing_call_open() {
    let (calls, _, _, error) = told(Said::Answer(200, refusal("4711")), true);
    assert!(calls == 1 && matches!(error, CallError::Unknown(_)), "{error:?}");
    let (calls, _, _, error) = told(Said::Answer(200, refusal("4711")), false);
    assert!(calls == 1 && matches!(error, CallError::Ours(Failure::Retry { .. })), "{error:?}");
}

#[test]
fn one_person_refused_leaves_the_neighbours_alone() {
    for code in ANSWERS.iter().filter(|row| row.person.is_some()).map(|row| row.code).chain(["4711"]) {
        let world = World::new();
        let row = format!(r#"{{"id":9,"status":"skipped","reasons":[{{"code":"{code}","message":"m"}}]}}"#);
        let body = |status: &str| {
            format!(r#"{{"requestId":"r","success":true,"result":[{row},{{"id":3,"status":"{status}"}}]}}"#)
        };
        world.say(200, &body("added"));
        world.say(200, &body("removed"));
        let added = block_on(world.client().add(world.slot(), LIST, &[3, 9])).expect("an answer");
        let removed = block_on(world.client().remove(world.slot(), LIST, &[3, 9])).expect("an answer");
        for (rows, done) in [(added, false), (removed, class_of_person(code) == Class::Done)] {
            assert_eq!(rows.get(&3), Some(&Told::Done), "{code}");
            match &rows[&9] {
                Told::Done => assert!(done, "{code}"),
                Told::Refused(refusal) => {
                    assert!(!done && refusal.code == code && refusal.request_id == "r", "{code}");
                }
            }
        }
    }
}

#[test]
fn a_passing_trouble_of_the_doubles_is_not_noticed() {
    for code in [601, 602, 608, 614, 713, 719] {
        let world = World::new();
        let fault = Fault {
            kind: Some(Kind::ListAdd),
            which: Which::Nth(1),
            answer: FaultAnswer::Code(code),
            commit: Commit::Before,
        };
        world.double().inject(fault);
        let rows = block_on(world.client().add(world.slot(), LIST, &[3])).expect("an answer");
        assert_eq!(rows, BTreeMap::from([(3, Told::Done)]), "{code}");
        assert!(world.double().members(LIST).expect("the list").contains(&3), "{code}");
        assert_eq!(world.counted().1, 2, "{code}");
    }
}

#[test]
fn an_outcome_that_the_double_hides_is_never_taken_for_none() {
    let answers = [
        FaultAnswer::Http502,
        FaultAnswer::Http(500),
        FaultAnswer::Http(503),
        FaultAnswer::Drop,
        FaultAnswer::Html,
        FaultAnswer::Empty,
        FaultAnswer::NoErrors,
        FaultAnswer::EmptyErrors,
        FaultAnswer::Code(604),
        FaultAnswer::NumberCode(611),
    ];
    for answer in answers {
        for commit in [Commit::Before, Commit::After] {
            let world = World::new();
            world.double().inject(Fault { kind: Some(Kind::ListAdd), which: Which::Nth(1), answer, commit });
            let error = block_on(world.client().add(world.slot(), LIST, &[3])).expect_err("no answer");
            assert!(matches!(error, CallError::Unknown(_)), "{answer:?} {error:?}");
            let inside = world.double().members(LIST).expect("the list").contains(&3);
            assert_eq!((inside, world.counted().1), (commit == Commit::After, 1), "{answer:?}");
        }
    }
}

#[test]
fn the_shape_of_an_answer_does_not_matter_and_a_missing_row_is_no_answer() {
    for shape in [FaultAnswer::NumberCodes, FaultAnswer::Shuffled, FaultAnswer::ObjectResult, FaultAnswer::MissingRow] {
        let world = World::new();
        world.double().refuse_lead(5, Some(1008));
        let fault = Fault { kind: None, which: Which::All, answer: shape, commit: Commit::Before };
        block_on(world.client().use_today(world.slot())).expect("a token first");
        world.double().inject(fault);
        let added = block_on(world.client().add(world.slot(), LIST, &[3, 5, 99])).expect("an answer");
        let removed = block_on(world.client().remove(world.slot(), LIST, &[2, 4, 99])).expect("an answer");
        let expected = match shape {
            FaultAnswer::ObjectResult => 1,
            FaultAnswer::MissingRow => 2,
            _ => 3,
        };
        assert_eq!((added.len(), removed.len()), (expected, expected), "{shape:?}");
        let code = |told: &Told| match told {
            Told::Done => String::new(),
            Told::Refused(refusal) => refusal.code.clone(),
        };
        for (rows, true_codes) in
            [(added, [(3, ""), (5, "1008"), (99, "1004")]), (removed, [(2, ""), (4, ""), (99, "1004")])]
        {
            for (lead, true_code) in true_codes {
                assert!(rows.get(&lead).is_none_or(|told| code(told) == true_code), "{shape:?} {lead} {rows:?}");
            }
        }
    }
}

#[test]
fn nothing_is_repeated_into_the_time_that_is_kept_for_the_answer() {
    let world = World::new();
    world.say(200, &refusal("\"608\""));
    let client = world.client_until(START + marketo::MARGIN_MS + 1_000);
    let error = block_on(client.add(world.slot(), LIST, &[3])).expect_err("no time");
    assert!(matches!(error, CallError::Wait(until) if until == START + 1_000), "{error:?}");
    assert_eq!(world.counted().1, 1);
}

#[test]
fn a_writing_call_never_leaves_long_after_its_slot() {
    let world = World::new();
    let slot = world.slot();
    // The token is refused to somebody else just then, and Marketo is slow to give another.
    world.deps.forget_access_token(Vendor::Marketo);
    world.outside.identity_takes.store(SEND_WITHIN_MS + 1, std::sync::atomic::Ordering::Relaxed);
    world.sent();
    let error = block_on(world.client().add(slot, LIST, &[3])).expect_err("too late");
    assert!(matches!(error, CallError::Wait(until) if until == world.now()), "{error:?}");
    assert_eq!(world.counted(), (1, 0));

    // The same in the middle: the repetition would leave too late.
    let world = World::new();
    let slot = world.slot();
    world.pass(SEND_WITHIN_MS - 500);
    world.say(200, &refusal("\"608\""));
    let error = block_on(world.client().add(slot, LIST, &[3])).expect_err("too late");
    assert!(matches!(error, CallError::Wait(_)), "{error:?}");
    assert_eq!(world.counted().1, 1);
    let slot = world.slot();
    world.pass(SEND_WITHIN_MS - 500);
    world.say(200, &refusal("\"608\""));
    block_on(world.client().membership(slot, LIST, &[3])).expect("reading may be repeated later");
}

#[test]
fn every_repetition_asks_the_budget() {
    let world = World::new();
    for _ in 0..4 {
        world.say(200, &refusal("\"713\""));
    }
    block_on(world.client().add(world.slot(), LIST, &[3])).expect("the fifth attempt");
    // Fifty places in the window: five are taken, one of them by the first attempt.
    let slots = block_on(async {
        let mut taken = 0;
        while let Ok(slots) = world.client_until(world.now()).slots(10).await {
            taken += slots.len();
        }
        taken
    });
    assert_eq!(slots, 45);
}
