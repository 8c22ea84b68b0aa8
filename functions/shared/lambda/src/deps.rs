//! What the handlers' libraries work with, from what a function has.

use domain::limits::DAY_MS;
use futures::future::join_all;
use ports::Vendor;
use state::{Deps, Settings};

use crate::App;

/// Rows of work above which a pass is cheaper than looking each up: a look-up costs about ten reads, and a page of
/// a pass shows a thousand records.
const PASS_ABOVE: usize = 100;
/// Identity records of one slice of a pass: about a minute's worth.
const SLICE_RECORDS: usize = 400_000;
/// Entries of a delivery that stand in memory at once: 512 MB of the function's 1,024 (`infra/template.yaml`). Three audiences of
/// ten million fit.
const ENTRIES_AT_ONCE: u64 = 32 << 20;
/// Facts of a delivery about one audience above which they are a set and not rows. Two objects cost about as much as a dozen
/// rows; but an audience has room for few of them, each is opened by whoever asks, and a pass follows.
const RUN_ABOVE: usize = 1_000;
/// After this time facts are folded, in ms: as long as what stands between two steps is kept. Adobe delivers each day, and
/// notices that were lost are found after a quarter of an hour.
const FOLD_AFTER_MS: u64 = 8 * DAY_MS;

/// The dependencies of a process, made once, so that a warm one remembers credentials, tokens and bases. What a function
/// does not use stays empty.
///
/// The credentials are read now, so that the first message does not wait for them. Where that fails, whoever needs them
/// reads them again and fails by itself: a function is not down on account of one vendor.
pub async fn deps(app: &App) -> Deps {
    let config = &app.config;
    let marketo = config.marketo.as_ref();
    let adobe = config.adobe.as_ref();
    let settings = Settings {
        time_scale: config.time_scale,
        quota_share: marketo.map_or(1.0, |marketo| marketo.quota.share),
        quota_per_day: marketo.map_or(0, |marketo| u64::from(marketo.quota.calls_per_day)),
        match_lifetime_ms: u64::from(config.match_lifetime_days) * DAY_MS,
        marketo_url: marketo.map(|marketo| marketo.base_url.clone()).unwrap_or_default(),
        ims_url: adobe.map(|adobe| adobe.ims_url.clone()).unwrap_or_default(),
        aam_url: adobe.map(|adobe| adobe.aam_url.clone()).unwrap_or_default(),
        aep_url: adobe.map(|adobe| adobe.aep_url.clone()).unwrap_or_default(),
        aep_folders_url: adobe.map(|adobe| adobe.aep_folders_url.clone()).unwrap_or_default(),
        aep_sandbox: adobe.map(|adobe| adobe.aep_sandbox.clone()).unwrap_or_default(),
        adobe_scopes: adobe.map(|adobe| adobe.scopes.clone()).unwrap_or_default(),
        pass_above: PASS_ABOVE,
        slice_records: SLICE_RECORDS,
        entries_at_once: ENTRIES_AT_ONCE,
        run_above: RUN_ABOVE,
        fold_after_ms: FOLD_AFTER_MS,
    };
    let deps = Deps::new(app.ports.clone(), settings);
    let vendors: Vec<Vendor> = config.secrets().into_keys().collect();
    let read = join_all(vendors.into_iter().map(|vendor| deps.credentials(vendor))).await;
    for error in read.into_iter().filter_map(Result::err) {
        tracing::warn!(error = error.to_string(), "credentials could not be read at the start");
    }
    deps
}
