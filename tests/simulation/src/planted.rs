//! Planted bugs: each guard of the production code taken out by itself, and how many random worlds it takes until
//! somebody notices. A simulation that finds nothing has shown nothing until it finds these.

use domain::planted::Guard;

use crate::campaign::{self, Campaign};
use crate::scenario::Plan;

/// What somebody tired would have written in the guard's place.
#[must_use]
pub const fn bug(guard: Guard) -> &'static str {
    match guard {
        Guard::HoldAfterDoubt => "a lead is touched again while a call of unknown outcome may still land (a)",
        Guard::MayIsPerList => "a second sync takes the first one's people for members of before (b)",
        Guard::GoneKeepsMay => "a removal answered 1004 is a removal (c)",
        Guard::WinnerInheritsTheirs => "a merge's winner is not *theirs* although the loser was (d)",
        Guard::TokenRevision => "a token is written over whatever stands there (e)",
        Guard::FormerLeads => "a token that moves forgets whom it leaves (f)",
        Guard::AnswerRevision => "an old answer is written over what was learned since the question (g)",
        Guard::ReplayBeforePublish => "a pass publishes what it read, and drops what changed meanwhile (h)",
        Guard::VersionInDedup => "a ring has the same deduplication id each time (i)",
        Guard::ClearBeforeRead => "the dirty mark is cleared when the work is done (j)",
        Guard::AskBeforeFirstAdd => "members are looked at once, when a list is first written (k)",
        Guard::RowBeforeList => "the list is made first, and the sync's row after it (l)",
        Guard::OutStaysOut => "somebody taken out by hand is put back (m)",
        Guard::ErasedWhenCertain => "an erased person is forgotten while a call may still put them back (n)",
        Guard::ErasedStaysErased => "a late match brings back who was erased (o)",
        Guard::MergesBeforeErasing => "a list hears of an erasure before it hears of the merges of before (p)",
        Guard::NoteBeforeWrite => "an edge is changed without a note (q)",
        Guard::NotesOverlap => "a note is passed over as soon as it was read (r)",
        Guard::FailedWorkComesAgain => "work is acknowledged although it failed",
        Guard::FailedMatchesComeAgain => "matches are acknowledged although they were not stored",
        Guard::FailedEntriesComeAgain => "a stream's entries are acknowledged although they were not taken in",
        Guard::TakenWhenTaken => "a file is marked as taken in before it is",
        Guard::OverStaysOver => "a file that has been taken in is said to be under way by whoever looked before",
        Guard::MarksAreRung => "a ring is lost: a key is marked, and the sweep may see to it",
        Guard::MarkedWhileAtWork => "a key that is at work is not marked: it is being handled anyway",
        Guard::RungThoughNothingIsNew => "nobody is rung where nothing changed, not even after a death",
        Guard::TimersAreKept => "when to look again is forgotten",
        Guard::ResumedIsRung => "a sync is resumed, and its list is not rung",
        Guard::WriteBeforeRing => "an audience is rung before its facts are written",
        Guard::UpdatesAreConditional => "rows are read, changed and written without a condition",
        Guard::AddedWorkStays => "a row of work is deleted although somebody added to it",
        Guard::FactsAskForAnotherPass => "a pass under way is to do for what came after it began",
        Guard::LaterWordCounts => "time is ignored: the word that came last counts",
        Guard::NewerSnapshotStays => "time is ignored: the snapshot that came last counts",
        Guard::WordsSurviveSnapshots => "a snapshot wipes out newer words",
        Guard::AbsenceSaysNothing => "whom a file of changes does not name has left",
        Guard::AnyBrowserCounts => "somebody leaves with the first of their browsers",
        Guard::PeopleAreASet => "a counter instead of a set: people are counted once a browser",
        Guard::AnonymousStayOut => "leads without an email are wanted",
        Guard::FormerEcidsAreTold => "the ECIDs that a lead lost are told to nobody",
        Guard::EndsAreTold => "a match ends, and nobody is told",
        Guard::HintBeforeEdge => "an edge is written before what leads to it",
        Guard::RowsByName => "position is trusted: the n-th row answers for the n-th token",
        Guard::MergesAreFollowed => "a merge is skipped",
        Guard::EverySyncCounts => "only the last of a list's syncs counts",
        Guard::MembersOfBefore => "members who were there before us are taken for ours",
        Guard::IntentBeforeEffect => "a call is sent before its intent is stored",
        Guard::SilenceProvesNothing => "*may* is forgotten: a call without an answer did not happen",
        Guard::RepeatsAreOneRequest => "an idempotency key is not looked up",
    }
}

/// The crafted test that finds it for certain; `None`: random worlds find it soon.
#[must_use]
pub const fn crafted(guard: Guard) -> Option<&'static str> {
    Some(match guard {
        Guard::HoldAfterDoubt => "writer.rs::a_late_call_after_a_change_of_mind_is_found_without_holds",
        Guard::MayIsPerList => "writer.rs::b_a_second_sync_on_the_list_is_found_without_may_per_list",
        Guard::GoneKeepsMay => "writer.rs::c_a_merge_that_we_learn_late_is_found_if_1004_shrinks_may",
        Guard::WinnerInheritsTheirs => {
            "writer.rs::d_a_loser_who_was_there_before_us_is_found_if_the_winner_inherits_nothing"
        }
        Guard::TokenRevision => "interleavings.rs::e_a_match_and_an_association_of_one_token_at_once",
        Guard::FormerLeads => "interleavings.rs::f_a_token_that_moves_and_a_death_after_the_write",
        Guard::AnswerRevision => "interleavings.rs::g_an_old_answer_after_a_merge_was_followed",
        Guard::ReplayBeforePublish => "interleavings.rs::h_somebody_becomes_known_between_two_slices",
        Guard::VersionInDedup => "interleavings.rs::i_a_second_ring_within_five_minutes",
        Guard::ClearBeforeRead => "interleavings.rs::j_a_mark_between_reading_and_clearing",
        Guard::AskBeforeFirstAdd => {
            "writer.rs::k_somebody_added_by_hand_after_our_first_look_is_found_without_asking_again"
        }
        Guard::RowBeforeList => "interleavings.rs::l_a_list_is_made_and_its_maker_dies",
        Guard::OutStaysOut => "writer.rs::m_somebody_taken_out_by_hand_is_found_if_they_are_put_back",
        Guard::ErasedWhenCertain => {
            "writer.rs::n_somebody_erased_whose_call_was_lost_is_found_if_they_are_forgotten_at_once"
        }
        Guard::ErasedStaysErased => "people.rs::o_a_late_match_of_somebody_who_was_erased",
        Guard::MergesBeforeErasing => "erasing.rs::p_a_merge_of_before_an_erasure_that_is_told_after_it",
        Guard::NoteBeforeWrite => "interleavings.rs::q_a_change_that_nobody_noted",
        Guard::NotesOverlap => "interleavings.rs::r_a_note_is_read_before_the_write_that_it_announces",
        Guard::MarksAreRung => "interleavings.rs::a_ring_that_is_left_to_the_sweep",
        Guard::MarkedWhileAtWork => "interleavings.rs::somebody_becomes_known_while_their_audience_is_at_work",
        Guard::FailedEntriesComeAgain => "interleavings.rs::a_stream_that_is_heard_while_calls_fail",
        Guard::RungThoughNothingIsNew => "interleavings.rs::a_death_between_publishing_and_ringing",
        Guard::WriteBeforeRing => "interleavings.rs::a_ring_before_its_facts",
        Guard::AddedWorkStays => "interleavings.rs::work_that_is_added_while_it_is_done",
        Guard::FactsAskForAnotherPass => "interleavings.rs::a_file_during_a_pass",
        Guard::FormerEcidsAreTold => "interleavings.rs::somebody_whom_marketo_ties_to_their_ecid_no_more",
        Guard::LaterWordCounts => "interleavings.rs::a_word_that_comes_late",
        Guard::HintBeforeEdge => "interleavings.rs::a_match_that_is_stored_by_halves",
        Guard::ResumedIsRung => "interleavings.rs::somebody_who_came_while_the_sync_was_paused",
        Guard::RowsByName => "interleavings.rs::two_cookies_that_are_asked_about_together",
        Guard::MergesAreFollowed => "interleavings.rs::a_merge_that_no_list_hears_of",
        Guard::IntentBeforeEffect => "interleavings.rs::a_writer_who_dies_and_a_change_of_mind",
        Guard::SilenceProvesNothing => "interleavings.rs::a_call_without_an_answer_and_a_change_of_mind",
        _ => return None,
    })
}

/// After how many random worlds, in the order of their seeds, it is noticed that a guard is out; `None`: not in so many. Only
/// worlds count that end well with every guard in.
#[must_use]
pub fn found_after(guard: Guard, most: u64) -> Option<u64> {
    let mut from = 0;
    while from < most {
        let campaign = Campaign { from, seeds: most - from, planted: Some(guard), give_up_after: 1 };
        let seed = campaign::run(campaign, |_, _| {}).failures.first()?.seed;
        from = seed + 1;
        if campaign::attempt(Plan::of(seed), None).outcome.is_ok() {
            return Some(from);
        }
    }
    None
}

/// The beginning of a guard's row in the table of `infra/docs/simulation.md`, up to the number of worlds.
#[must_use]
pub fn row(guard: Guard) -> String {
    let crafted = crafted(guard).map_or_else(String::new, |test| format!("`tests/simulation/tests/{test}`"));
    format!("| `{guard:?}` | {} | {crafted} | ", bug(guard))
}

/// That table, measured: of each bug after how many random worlds it was found. `tell`: gets each line as soon as it is known.
pub fn table<E>(most: u64, mut tell: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    tell("| guard | the bug where it is out | crafted test | found after so many random worlds |")?;
    tell("|---|---|---|---|")?;
    for guard in Guard::ALL {
        let found = found_after(guard, most).map_or_else(|| format!("not in {most}"), |seeds| seeds.to_string());
        tell(&format!("{}{found} |", row(guard)))?;
    }
    Ok(())
}
