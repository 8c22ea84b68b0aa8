//! The shapes of a world's files.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// `library.json`: what the audience library shows, of Audience Manager and of Experience Platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// Audience Manager's folders, as a flat list.
    pub folders: Vec<Folder>,
    /// Audience Manager's segments.
    pub segments: Vec<Segment>,
    /// Experience Platform's audiences. No API tells which folder one is in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<Audience>,
    /// Experience Platform's folders, as a flat list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platform_folders: Vec<PlatformFolder>,
}

/// A folder of the audience library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Adobe's id.
    #[serde(rename = "folderId")]
    pub folder_id: u64,
    /// The folder above; 0 is the root.
    #[serde(rename = "parentFolderId")]
    pub parent_folder_id: u64,
    /// Name on screen.
    pub name: String,
}

/// A segment: an audience of Audience Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Adobe's id; the audience's id is `aam:<sid>`.
    pub sid: u64,
    /// The folder that holds it.
    #[serde(rename = "folderId")]
    pub folder_id: u64,
    /// Name on screen.
    pub name: String,
}

/// An audience of Experience Platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audience {
    /// Adobe's id, a UUID in lower case; the audience's id is `aep:<id>`.
    pub id: String,
    /// Name on screen.
    pub name: String,
    /// It was made elsewhere and brought in (`ExternalSegment`).
    #[serde(default)]
    pub external: bool,
}

/// A folder of Experience Platform's audiences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformFolder {
    /// Adobe's id, a UUID in lower case.
    pub id: String,
    /// The folder above; absent: the root.
    #[serde(default, rename = "parentId")]
    pub parent_id: Option<String>,
    /// Name on screen.
    pub name: String,
}

/// `marketo.json`: one Marketo subscription and what its database holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarketoData {
    /// `AAA-BBB-CCC`.
    pub munchkin_id: String,
    /// `<24 characters>@AdobeOrg`; absent or null: no IMS organisation is mapped.
    pub org_id: Option<String>,
    /// A HIPAA-ready instance must not be used with this integration.
    #[serde(default)]
    pub hipaa_ready: bool,
    /// Whether cookie sync is switched on.
    #[serde(default = "yes")]
    pub cookie_sync: bool,
    /// People, known and anonymous.
    pub leads: Vec<Lead>,
    /// Static lists.
    #[serde(default)]
    pub lists: Vec<List>,
}

fn yes() -> bool {
    true
}

/// A lead of Marketo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lead {
    /// Marketo's id.
    pub id: u64,
    /// `None`: anonymous.
    #[serde(default)]
    pub email: Option<String>,
    /// Munchkin tokens (`_mch-…`) that belong to this lead.
    #[serde(default)]
    pub cookies: Vec<String>,
    /// ECIDs that Marketo itself has stored (38 digits each).
    #[serde(default)]
    pub ecids: Vec<String>,
}

/// A static list of Marketo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// Marketo's id.
    pub id: u64,
    /// Name; unique in our doubles.
    pub name: String,
    /// Lead ids.
    #[serde(default)]
    pub members: BTreeSet<u64>,
}

/// One line of `matches.jsonl`: an ECID seen beside a Munchkin token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// 38 digits.
    pub ecid: String,
    /// `_mch-…`.
    pub token: String,
    /// RFC 3339.
    pub seen_at: String,
}

/// One line of `later.jsonl`: something that happens in the world after the n-th file has settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    /// 1 for the first file.
    pub after_file: usize,
    /// What happens; in the file it stands beside `after_file` under its own name.
    #[serde(flatten)]
    pub event: Event,
}

/// What can happen in the world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A lead appears or changes. It is stated whole: what is not repeated (email, cookies, ECIDs) is gone.
    Lead(Lead),
    /// A browser shows both cookies.
    Match(Match),
    /// Marketo merges leads.
    Merge {
        /// Stays.
        winner: u64,
        /// Vanish.
        losers: Vec<u64>,
    },
    /// Marketo deletes a lead.
    Delete(u64),
    /// Adobe streams that somebody joined an audience or left it.
    Stream(Streamed),
}

/// What every stream that the world declares says of one membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streamed {
    /// `aam:<sid>` or `aep:<id>`; in the file, a number is a sid.
    pub audience: String,
    /// 38 digits.
    pub ecid: String,
    /// In or out.
    pub member: bool,
}
