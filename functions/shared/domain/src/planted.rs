//! Guards that a test can take out, to show that the test would notice. Without the feature `planted`, which no
//! shipped build has, every guard is in and the checks compile to nothing.

/// A guard of the protocol, named after the interleaving of the design that breaks without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guard {
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
    /// l: a sync's row is written before its list is made, and the list bears its id.
    RowBeforeList,
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
