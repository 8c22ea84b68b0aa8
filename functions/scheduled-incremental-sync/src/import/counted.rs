//! What was counted of a delivery by an invocation whose time was too short: the next one need not count it again.

use std::collections::BTreeSet;

use ports::Failure;
use serde::{Deserialize, Serialize};
use state::feeds::{Delivery, Progress};
use state::{Deps, Step};

use super::content::Counts;
use super::delivery::Outcome;
use super::files::Looked;

/// What was counted so far, file by file. It is kept in the bucket: it may be larger than a row.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Counted {
    v: u8,
    /// How the files were understood.
    digest: u32,
    /// The files, in the order in which they were counted.
    pub(super) all: Vec<Looked>,
    /// What they hold together.
    pub(super) counts: Counts,
    #[serde(skip)]
    names: BTreeSet<String>,
}

impl Counted {
    /// What an earlier invocation has counted; nothing, if files were understood otherwise.
    pub(super) async fn load(deps: &Deps, delivery: &Delivery, digest: u32) -> Step<Self> {
        let nothing = Self { v: 1, digest, ..Self::default() };
        let Some(key) = &delivery.progress.counted else { return Ok(nothing) };
        // The bucket keeps it for some days only.
        let Some(bytes) = deps.ports.objects.get(key).await? else { return Ok(nothing) };
        let found: Option<Self> = serde_json::from_slice(&bytes).ok();
        let fits = |found: &Self| {
            let is_part = |looked: &Looked| delivery.parts.get(&looked.name) == Some(&looked.part);
            found.v == 1 && found.digest == digest && found.all.iter().all(is_part)
        };
        let Some(mut found) = found.filter(fits) else { return Ok(nothing) };
        found.names = found.all.iter().map(|looked| looked.name.clone()).collect();
        Ok(found)
    }

    /// Whether an earlier invocation has counted this file.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The time was too short: keeps what was counted, if that is more than the `before` files of earlier invocations. `further`:
    /// something was taken.
    pub(super) async fn more(
        self,
        deps: &Deps,
        delivery: &Delivery,
        before: usize,
        progress: Progress,
        further: bool,
    ) -> Step<Outcome> {
        if self.all.len() == before {
            return Ok(Outcome::More { progress, further });
        }
        let body = serde_json::to_vec(&self).map_err(|_| Failure::fail("counts cannot be written as JSON"))?;
        let key = format!("{COUNTS}/{}", deps.fresh_id());
        deps.ports.objects.put(&key, body.into()).await?;
        forget(deps, &delivery.progress).await?;
        Ok(Outcome::More { progress: Progress { counted: Some(key), ..progress }, further: true })
    }
}

/// Where counts stand: what is left by somebody who died goes away by itself (`infra/template.yaml`).
const COUNTS: &str = "sets/reading";

/// Deletes what was counted, if anything was kept.
pub(super) async fn forget(deps: &Deps, progress: &Progress) -> Step<()> {
    match &progress.counted {
        Some(key) => Ok(deps.ports.objects.delete(key).await?),
        None => Ok(()),
    }
}
