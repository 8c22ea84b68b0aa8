use super::*;
use crate::{folder, reference, syncs, testing::Scratch};

const SEED: u64 = 7;

/// Leads that own the token.
fn owners(world: &World) -> BTreeMap<&str, u64> {
    let leads = world.marketo.leads.iter();
    leads.flat_map(|lead| lead.cookies.iter().map(|token| (token.as_str(), lead.id))).collect()
}

#[test]
fn the_sample_has_the_promised_size() {
    let Sample { world, first, second } = sample(SEED);
    assert!(world.library.folders.len() >= 3);
    assert_eq!(world.library.segments.len(), 6);
    let synced: BTreeSet<&str> = world.syncs.iter().filter_map(|body| body["audience_id"].as_str()).collect();
    assert_eq!(synced.len(), 5, "one audience is left for the visitor");
    let ecids: BTreeSet<&String> = first.values().chain(second.values()).flatten().collect();
    assert_eq!(ecids.len(), 50_000);
    assert_eq!(world.matches.len(), 20_000);
    assert_eq!(world.marketo.leads.iter().filter(|lead| lead.email.is_some()).count(), 8_000);
    assert_eq!((first.len(), second.len()), (6, 6), "every audience is delivered");
}

#[test]
fn the_sample_has_at_least_200_of_each_part() {
    let Sample { world, first, .. } = sample(SEED);
    let owners = owners(&world);
    let mut people: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut browsers: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    let mut strangers = 0;
    for m in &world.matches {
        match owners.get(m.token.as_str()) {
            Some(lead) => {
                people.entry(&m.ecid).or_default().insert(*lead);
                browsers.entry(*lead).or_default().insert(&m.token);
            }
            None => strangers += 1,
        }
    }
    let at_least_200 = |what: &str, n: usize| assert!(n >= 200, "{what}: {n}");
    at_least_200("shared devices", people.values().filter(|leads| leads.len() > 1).count());
    at_least_200("people with several browsers", browsers.values().filter(|tokens| tokens.len() > 1).count());
    at_least_200("tokens unknown to Marketo", strangers);
    at_least_200("anonymous leads", world.marketo.leads.iter().filter(|lead| lead.email.is_none()).count());

    let seen: BTreeSet<&str> = world.matches.iter().map(|m| m.ecid.as_str()).collect();
    let own = world.marketo.leads.iter().flat_map(|lead| &lead.ecids);
    at_least_200("ECIDs only Marketo knows", own.filter(|ecid| !seen.contains(ecid.as_str())).count());

    let (mut deleted, mut losers, mut known, mut moved, mut shown) = (0, 0, 0, 0, 0);
    let before: BTreeMap<u64, &Lead> = world.marketo.leads.iter().map(|lead| (lead.id, lead)).collect();
    for later in &world.later {
        match &later.event {
            Event::Delete(_) => deleted += 1,
            Event::Merge { losers: these, .. } => losers += these.len(),
            Event::Match(_) => shown += 1,
            Event::Stream(_) => panic!("the sample has no stream"),
            Event::Lead(lead) if before[&lead.id].email.is_none() => known += 1,
            Event::Lead(_) => moved += 1,
        }
    }
    at_least_200("leads deleted later", deleted);
    at_least_200("leads merged later", losers);
    at_least_200("people who become known", known);
    assert!(moved > 0 && shown > 0);
    for after in [1, 2] {
        assert!(world.later.iter().any(|later| later.after_file == after));
    }

    let lists = reference::lists(&world, 1);
    let (mut target, mut wanted) = (0, 0);
    for list in world.marketo.lists.iter().filter(|list| [VIP, CART].contains(&list.id)) {
        target += list.members.len();
        let sid = |audience: &str| audience.strip_prefix("aam:").and_then(|sid| sid.parse().ok()).expect("a segment");
        let syncs = syncs::accepted(&world);
        let sids: Vec<u64> = syncs.iter().filter(|s| s.list == list.id).map(|s| sid(&s.audience)).collect();
        let audience: BTreeSet<&str> = sids.iter().flat_map(|sid| &first[sid]).map(String::as_str).collect();
        let leads = audience.iter().filter_map(|ecid| people.get(ecid)).flatten();
        wanted += leads.collect::<BTreeSet<_>>().intersection(&list.members.iter().collect()).count();
        assert!(lists[&list.id].len() > list.members.len());
    }
    at_least_200("people already in a target list", target);
    at_least_200("of them in its audience", wanted);
}

#[test]
fn the_files_say_who_is_a_member() {
    let Sample { world, first, second } = sized(SEED, 500, 200, 96);
    for (file, members) in world.files.iter().zip([&first, &second]) {
        let facts = file.facts().expect("readable");
        assert!(facts.snapshot && facts.left.is_empty());
        assert_eq!(&facts.joined, members);
    }
    assert_ne!(first, second);
    let changes = |sid| [first[&sid].difference(&second[&sid]).count(), second[&sid].difference(&first[&sid]).count()];
    assert!((101..=106).all(|sid| changes(sid).iter().all(|n| *n > 0)), "each audience gains and loses");
}

#[test]
fn a_seed_gives_one_world_and_another_seed_another() {
    let one = sized(SEED, 500, 200, 96);
    assert_eq!(one, sized(SEED, 500, 200, 96));
    assert_ne!(one, sized(SEED + 1, 500, 200, 96));
}

#[test]
fn the_sample_is_a_good_data_folder() {
    let scratch = Scratch::new();
    let world = sample(SEED).world;
    folder::write(&world, &scratch.0).expect("written");
    assert!(folder::read(&scratch.0).expect("good") == world);
}

/// Design §4.13: no list may lose 30 % (and 100) of its people in a day, nor more than double (and 5,000).
#[test]
fn nothing_in_the_sample_is_a_mass_change() {
    for (world, people) in [(sample(SEED).world, 8_000), (sized(SEED, 100_000, 30_000, 10_000).world, 10_000)] {
        let (first, last) = (reference::lists(&world, 1), reference::lists(&world, 2));
        for sync in syncs::accepted(&world) {
            let (before, after) = (&first[&sync.list], &last[&sync.list]);
            let left = before.difference(after).count();
            assert!(before.len() > people / 20, "list {} holds {}", sync.list, before.len());
            assert!(left > 0 || sync.keep, "somebody leaves list {}", sync.list);
            assert!(left * 100 < before.len() * 15, "{left} of {} leave list {}", before.len(), sync.list);
            assert!(after.difference(before).count() * 2 < before.len());
        }
    }
}
