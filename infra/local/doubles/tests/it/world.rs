//! What happens without a call of ours.

use doubles::marketo::Settings;
use world::types::Event;

use crate::rig::{MUNCHKIN, Rig, cookie, ecid, ids, lead, token};

fn kinds(rig: &Rig) -> Vec<(u16, u64)> {
    rig.core.activities().iter().map(|activity| (activity.type_id, activity.lead)).collect()
}

#[test]
fn a_new_lead_is_12_and_a_changed_one_2_and_a_cookie_moves() {
    let mut rig = Rig::plain();
    rig.core.upsert_lead(rig.now, lead(9, Some("i@example.com"), &[2, 9], &[9]));
    rig.core.upsert_lead(rig.now, lead(9, Some("j@example.com"), &[2], &[9]));
    assert_eq!(kinds(&rig), [(12, 9), (2, 9)]);
    assert_eq!(rig.core.owner_of(&token(2)), Some(9));
    assert_eq!(rig.core.owner_of(&token(9)), None);
    assert!(rig.core.lead(2).expect("still there").cookies.is_empty());
    let by_email = |email: &str| format!("/rest/v1/leads.json?filterType=email&filterValues={email}");
    assert_eq!(ids(&rig.get(&by_email("i@example.com"))), [0; 0]);
    assert_eq!(ids(&rig.get(&by_email("j@example.com"))), [9]);
}

#[test]
fn a_changed_lead_stays_in_its_lists() {
    let mut rig = Rig::plain();
    rig.core.upsert_lead(rig.now, lead(1, Some("A@example.com"), &[1], &[]));
    assert_eq!(rig.members(1001), [1, 5]);
    assert_eq!(ids(&rig.get("/rest/v1/leads.json?filterType=email&filterValues=a@example.com")), [1]);
}

#[test]
fn a_merge_unites_lists_cookies_and_ecids() {
    let mut rig = Rig::plain();
    assert!(rig.core.merge(rig.now, 3, &[5, 1, 77]));
    let winner = rig.core.lead(3).expect("the winner").clone();
    assert_eq!(winner.email.as_deref(), Some("e@example.com"), "the winner had none and takes the first loser's");
    assert_eq!(winner.cookies, [token(3), token(5), token(1), token(11)]);
    assert_eq!(winner.ecids, [ecid(3), ecid(1)]);
    assert_eq!((rig.members(1001), rig.members(1005)), (vec![3], vec![3]));
    assert!(rig.core.lead(5).is_none() && rig.core.lead(1).is_none());
    assert_eq!(rig.core.activities()[0].attributes[0], ("Merge IDs".to_owned(), "[5,1]".to_owned()));
    let row = rig.get(&format!("/rest/v1/leads.json?filterType=cookies&filterValues={}", cookie(5)));
    assert_eq!(ids(&row), [3]);
    assert!(!rig.core.merge(rig.now, 1, &[2]), "a loser cannot win");
    assert!(!rig.core.merge(rig.now, 3, &[3, 5]), "nobody to merge");
}

#[test]
fn a_winner_keeps_its_email() {
    let mut rig = Rig::plain();
    assert!(rig.core.merge(rig.now, 1, &[2]));
    assert_eq!(rig.core.lead(1).and_then(|lead| lead.email.as_deref()), Some("a@example.com"));
}

#[test]
fn a_deleted_lead_leaves_its_lists() {
    let mut rig = Rig::plain();
    assert!(rig.core.delete(rig.now, 5));
    assert_eq!((rig.members(1001), rig.members(1005)), (vec![1], vec![]));
    assert_eq!(kinds(&rig), [(37, 5)]);
    assert!(!rig.core.delete(rig.now, 5));
    assert!(!rig.core.add_by_hand(rig.now, 1001, 5));
}

#[test]
fn a_form_makes_a_visitor_known() {
    let mut rig = Rig::plain();
    // An anonymous lead with an email nobody has.
    assert_eq!(rig.core.fill_form(rig.now, &token(3), "c@example.com"), 3);
    // An anonymous lead with the email of a person: merged into that person.
    assert_eq!(rig.core.fill_form(rig.now, &token(6), "B@example.com"), 2);
    assert_eq!(rig.core.owner_of(&token(6)), Some(2));
    assert!(rig.core.lead(6).is_none());
    // A token nobody has seen.
    assert_eq!(rig.core.fill_form(rig.now, &token(70), "new@example.com"), 7);
    // A known person's token with the email of another: the token moves.
    assert_eq!(rig.core.fill_form(rig.now, &token(5), "a@example.com"), 1);
    assert_eq!(rig.core.owner_of(&token(5)), Some(1));
    assert!(rig.core.lead(5).is_some_and(|lead| lead.cookies.is_empty()));
    assert_eq!(kinds(&rig), [(2, 3), (32, 2), (2, 2), (12, 7), (2, 7), (2, 1)]);
}

#[test]
fn somebody_changes_a_list_by_hand() {
    let mut rig = Rig::plain();
    assert!(rig.core.add_by_hand(rig.now, 1001, 4));
    assert!(!rig.core.add_by_hand(rig.now, 1001, 4));
    assert!(rig.core.remove_by_hand(rig.now, 1001, 1));
    assert!(!rig.core.remove_by_hand(rig.now, 7, 1));
    assert_eq!(rig.members(1001), [4, 5]);
}

#[test]
fn events_of_a_world_are_applied() {
    let mut rig = Rig::plain();
    assert!(rig.core.apply(rig.now, &Event::Lead(lead(8, None, &[8], &[]))));
    assert!(rig.core.apply(rig.now, &Event::Merge { winner: 1, losers: vec![2] }));
    assert!(rig.core.apply(rig.now, &Event::Delete(4)));
    let seen = world::types::Match { ecid: ecid(1), token: token(1), seen_at: "2026-11-20T00:00:00Z".to_owned() };
    assert!(!rig.core.apply(rig.now, &Event::Match(seen)));
    assert_eq!(rig.core.leads().keys().copied().collect::<Vec<_>>(), [1, 3, 5, 6, 8]);
}

#[test]
fn of_two_leads_with_one_cookie_the_later_owns_it_and_only_leads_are_members() {
    let mut data = crate::rig::data();
    data.leads.push(lead(8, None, &[1], &[]));
    data.lists[0].members.insert(99);
    let rig = Rig::with(Settings::default(), data);
    assert_eq!(rig.core.owner_of(&token(1)), Some(8));
    assert_eq!(rig.core.lead(1).map(|lead| lead.cookies.clone()), Some(vec![token(11)]));
    assert_eq!(rig.members(1001), [1, 5]);
    assert_eq!(rig.core.munchkin_id(), MUNCHKIN);
}
