//! What goes wrong in a simulated world, and what happens in it, by kind: what a seed switches on, and how often it struck.

use std::fmt;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A kind of fault, or of happening.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Kind {
            /// All of them.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)+];

            /// Its name for people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$variant => $name,)+
                }
            }
        }
    };
}

kinds! {
    /// A call to a port fails without effect.
    Unavailable = "call without effect",
    /// A call to a port takes effect, or not, and nobody is told.
    Unknown = "call of unknown outcome",
    /// A call to Marketo is answered by silence; its effect comes at once, late or never.
    Silence = "silence of Marketo",
    /// A handler is dropped at an await.
    Kill = "handler dropped",
    /// A handler does not move for a while, perhaps beyond its time.
    Freeze = "handler frozen",
    /// The deletion of a message is lost.
    Redeliver = "message delivered again",
    /// A message comes later than it could.
    Delay = "message delayed",
    /// A message goes to the dead-letter queue and is put back later.
    DeadLetter = "message dead-lettered and put back",
    /// A message bears a field that this version does not know.
    OtherVersion = "message of another version",
    /// A message lacks the fields that an older version did not know.
    OlderVersion = "message of an older version",
    /// An object's body ends before its length: the connection is cut.
    Truncated = "object cut while it is read",
    /// An object is stored again, as it was or with other line ends, and notice of it comes again.
    PutAgain = "file stored again",
    /// A process serves one invocation after the other, with what it remembers.
    Warm = "warm process",
    /// The clock of a process is fast or slow.
    Skew = "clock that differs",
    /// An eventually consistent read sees what stood there before.
    Stale = "stale read",
    /// The minute's tick comes late.
    LateTick = "tick that comes late",
    /// The notice of a file comes late, twice, or never.
    Notice = "notice of a file late, twice or lost",
    /// A part of a delivery never comes, or long after all others.
    PartMissing = "part of a delivery missing",
    /// Marketo gives another answer than the true one.
    Answer = "answer of Marketo",
    /// The API user lacks permissions, or our address is not on the allowlist (603), for a while.
    Denied = "access denied (603)",
    /// Marketo does not find somebody who is there (1004), for a while.
    Unseen = "person not found (1004)",
    /// Marketo does not know the field `ecids` (1006), for a while.
    NoField = "field not found (1006)",
    /// Marketo does not take a cookie (1012), for a while.
    BadCookie = "cookie refused (1012)",
    /// Marketo does not find a list that is there (1013), once.
    NoList = "list not found (1013)",
    /// Other tools use Marketo.
    OtherTools = "call of other tools",
    /// The day of Marketo's quota ends while the world lasts.
    Midnight = "midnight",
    /// A member of a list is put in or taken out by hand.
    ByHand = "edit by hand",
    /// Two people become one.
    Merge = "merge",
    /// Two people become one, and then the winner a third one; at times that one is deleted.
    Chain = "chain of merges",
    /// Somebody is deleted.
    Delete = "deletion",
    /// A list is deleted in Marketo.
    ListGone = "list deleted",
    /// Somebody is erased.
    Erase = "erasure",
    /// A token moves, or somebody becomes known.
    Form = "form filled",
    /// Marketo's record of somebody changes.
    Lead = "lead changed",
    /// A file comes.
    File = "file",
    /// A part of a file, or its control file, comes.
    Parts = "part of a file",
    /// A stream says something.
    Stream = "entry of a stream",
    /// A sync is paused or resumed.
    Pause = "sync paused or resumed",
    /// A sync is stopped.
    Stop = "sync stopped",
}

impl Kind {
    /// Whether it is something that happens in the world, and nothing that goes wrong.
    #[must_use]
    pub fn happens(self) -> bool {
        self >= Kind::Merge
    }
}

/// Some of the kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u64);

impl Kinds {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self((1 << Kind::ALL.len()) - 1);

    /// What happens in the world; nothing goes wrong.
    #[must_use]
    pub fn happenings() -> Self {
        Kind::ALL.iter().filter(|kind| kind.happens()).fold(Self::NONE, |kinds, kind| kinds.with(*kind))
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u64) != 0
    }

    /// The same with this one.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u64)
    }

    /// The same without this one.
    #[must_use]
    pub const fn without(self, kind: Kind) -> Self {
        Self(self.0 & !(1 << kind as u64))
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Kind::name).collect();
        f.write_str(&names.join(", "))
    }
}

/// How often each kind struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts([u64; Kind::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl Counts {
    /// It struck once more.
    pub const fn count(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// Adds what struck elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, more)| *mine += more);
    }

    /// Each kind, and how often it struck.
    pub fn iter(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.iter().copied().zip(self.0)
    }
}
