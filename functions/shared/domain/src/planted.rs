//! Guards that a test can take out, to show that the test would notice. Without the feature `planted`, which no
//! shipped build has, every guard is in and the checks compile to nothing.

/// The guards, from one list, so that none is forgotten in [`Guard::ALL`].
macro_rules! guards {
    ($($(#[$says:meta])+ $guard:ident,)+) => {
        /// A guard of the protocol: lettered ones are named after the interleaving of the design that breaks without
        /// them, the others after what holds with them. Without one the code is as somebody tired might have written it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Guard {
            $($(#[$says])+ $guard,)+
        }

        impl Guard {
            /// All guards.
            pub const ALL: [Self; [$(Self::$guard),+].len()] = [$(Self::$guard),+];
        }
    };
}

guards! {
    /// a: after a call of unknown outcome the lead is on hold.
    HoldAfterDoubt,
    /// b: *may* is kept per list, so a second sync knows whom the first one put there.
    MayIsPerList,
    /// c: a removal answered 1004 does not shrink *may*.
    GoneKeepsMay,
    /// d: a merge's winner inherits *theirs*.
    WinnerInheritsTheirs,
    /// e: a token's item is written on condition of its revision.
    TokenRevision,
    /// f: a token remembers its former leads until they were recomputed.
    FormerLeads,
    /// g: a look-up's answer applies only if the token is unchanged since the call.
    AnswerRevision,
    /// h: what changed during a pass is applied before the pass publishes.
    ReplayBeforePublish,
    /// i: a deduplication id carries the version of the key.
    VersionInDedup,
    /// j: the dirty mark is cleared before the state is read.
    ClearBeforeRead,
    /// k: who is in a list is asked just before each first add.
    AskBeforeFirstAdd,
    /// l: a sync's row is written before its list is made, and the list bears its id.
    RowBeforeList,
    /// m: whoever was taken out of a list by hand stays out.
    OutStaysOut,
    /// n: an erased lead is forgotten only when no call can put them back and none is needed to take them out.
    ErasedWhenCertain,
    /// o: what was seen before an erasure does not count after it.
    ErasedStaysErased,
    /// p: a list is told of an erasure only once Marketo's merges of before it have been read.
    MergesBeforeErasing,
    /// q: what changes an edge is noted before it is written.
    NoteBeforeWrite,
    /// r: a note is passed over only when whoever wrote it cannot live any more.
    NotesOverlap,
    /// Work that failed is not acknowledged.
    FailedWorkComesAgain,
    /// Matches that could not be stored are not acknowledged.
    FailedMatchesComeAgain,
    /// Entries of a stream that could not be taken in are not acknowledged.
    FailedEntriesComeAgain,
    /// A delivery is marked as taken in only when it is.
    TakenWhenTaken,
    /// The record of a file that is over is not opened again by whoever read it before.
    OverStaysOver,
    /// Whoever marks a key dirty rings it, and does not leave that to the sweep.
    MarksAreRung,
    /// A key that is at work is marked and rung all the same.
    MarkedWhileAtWork,
    /// Lists are rung even where nothing is new: an earlier attempt may have died before it rang.
    RungThoughNothingIsNew,
    /// When a key is to be looked at again is written down.
    TimersAreKept,
    /// Whoever resumes a sync rings its list.
    ResumedIsRung,
    /// The facts are written before anybody is rung for them.
    WriteBeforeRing,
    /// A row is written on condition that nobody changed it since it was read.
    UpdatesAreConditional,
    /// A row of work to which somebody added meanwhile is not deleted.
    AddedWorkStays,
    /// A fact that comes during a pass asks for another one.
    FactsAskForAnotherPass,
    /// Of two words of a source the one of the later time counts, not the one that came last.
    LaterWordCounts,
    /// A snapshot that comes late does not replace a newer one.
    NewerSnapshotStays,
    /// A word that is newer than the snapshot survives it.
    WordsSurviveSnapshots,
    /// Whom a file of changes does not name has not left.
    AbsenceSaysNothing,
    /// Somebody stays wanted as long as any of their browsers is in the audience.
    AnyBrowserCounts,
    /// Somebody of several browsers is counted once.
    PeopleAreASet,
    /// Nobody anonymous is wanted.
    AnonymousStayOut,
    /// A lead's ECIDs of before are told to the audiences.
    FormerEcidsAreTold,
    /// The end of a match is told to the audiences.
    EndsAreTold,
    /// From an ECID its token is found before the token says that it has it.
    HintBeforeEdge,
    /// Marketo's rows are told apart by what they say, and not by their place.
    RowsByName,
    /// A merge is followed in the lists.
    MergesAreFollowed,
    /// Every active sync of a list has a say in it.
    EverySyncCounts,
    /// Members who were there before us are known as such.
    MembersOfBefore,
    /// What is about to be done is stored before the call.
    IntentBeforeEffect,
    /// A call that was not answered may have taken effect: *may* keeps its people.
    SilenceProvesNothing,
    /// A request with an idempotency key of before is the same request.
    RepeatsAreOneRequest,
}

impl Guard {
    /// The guard of this name, as it is written here; `None`: there is none.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|guard| format!("{guard:?}") == name)
    }
}

#[cfg(feature = "planted")]
mod switch {
    use super::Guard;
    use std::cell::Cell;

    thread_local! {
        static OUT: Cell<Option<Guard>> = const { Cell::new(None) };
    }

    /// Takes one guard out (or none) on this thread.
    pub fn take_out(guard: Option<Guard>) {
        OUT.set(guard);
    }

    /// Whether the guard is in place.
    #[must_use]
    pub fn holds(guard: Guard) -> bool {
        OUT.get() != Some(guard)
    }
}

#[cfg(not(feature = "planted"))]
mod switch {
    /// Whether the guard is in place: always.
    #[must_use]
    pub const fn holds(_guard: super::Guard) -> bool {
        true
    }
}

pub use switch::*;
