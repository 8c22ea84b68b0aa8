//! What the instance's administrator can change: the API user's role, the allow-list, the custom service's secret.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Kind, Marketo, Refusal};

/// A permission of the API user's role (Marketo, "descriptions of role permissions", Access API).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Read-Only Lead.
    ReadLead,
    /// Read-Write Lead.
    ReadWriteLead,
    /// Read-Only Activity.
    ReadActivity,
    /// Read-Only Asset.
    ReadAsset,
    /// Read-Write Asset.
    ReadWriteAsset,
}

impl Kind {
    /// What the role must hold for a call; `None`: any role will do.
    #[must_use]
    pub fn permission(self) -> Option<Permission> {
        match self {
            Self::Leads
            | Self::Lead
            | Self::Describe
            | Self::Members
            | Self::Lists
            | Self::List
            | Self::ExportCreate
            | Self::ExportEnqueue
            | Self::ExportStatus
            | Self::ExportFile
            | Self::ExportCancel => Some(Permission::ReadLead),
            Self::ListAdd
            | Self::ListRemove
            | Self::IsMember
            | Self::ImportCreate
            | Self::ImportStatus
            | Self::ImportFailures
            | Self::ImportWarnings => Some(Permission::ReadWriteLead),
            Self::PagingToken | Self::Activities | Self::DeletedLeads => Some(Permission::ReadActivity),
            Self::ListsOfLead
            | Self::AssetBrowse
            | Self::AssetByName
            | Self::AssetGet
            | Self::Folders
            | Self::FolderByName
            | Self::Folder => Some(Permission::ReadAsset),
            Self::AssetCreate | Self::AssetUpdate | Self::AssetDelete => Some(Permission::ReadWriteAsset),
            Self::Token | Self::Usage | Self::UsageWeek | Self::Errors | Self::ErrorsWeek | Self::Unknown => None,
        }
    }
}

/// What keeps our calls out. Not part of the state that outlives a restart.
#[derive(Debug, Default)]
pub(super) struct Doors {
    /// Permissions that the role does not hold.
    missing: BTreeSet<Permission>,
    /// The caller's address is not on the allow-list.
    outside: bool,
}

impl Marketo {
    /// The role holds every permission but these: calls that need one of them answer 603.
    pub fn set_missing(&mut self, missing: impl IntoIterator<Item = Permission>) {
        self.doors.missing = missing.into_iter().collect();
    }

    /// `false`: the caller's address is not on the allow-list, so that every call but the one for a token answers 603.
    pub fn set_allowlisted(&mut self, listed: bool) {
        self.doors.outside = !listed;
    }

    /// Gives the custom service another secret. Tokens that were given stay good.
    pub fn set_secret(&mut self, secret: &str) {
        secret.clone_into(&mut self.settings.client_secret);
    }

    /// Whether the instance has the field `ecids` from now on; without it, asking for it answers 1006.
    pub fn set_ecids_field(&mut self, there: bool) {
        self.settings.ecids_field = there;
    }

    /// The gate behind the limits: address, then permission. Both refusals look the same.
    pub(super) fn allow(&self, kind: Kind) -> Result<(), Refusal> {
        let lacks = kind.permission().is_some_and(|needed| self.doors.missing.contains(&needed));
        if self.doors.outside || lacks { Err(Refusal::new(603, "Access denied")) } else { Ok(()) }
    }
}
