//! What the handlers' libraries work with, from what a function has.

use secrecy::ExposeSecret as _;
use state::deps::Credentials;
use state::{Deps, Settings};

use crate::App;

/// Rows of work above which a pass is cheaper than looking each up: a look-up costs about ten reads, and a page of
/// a pass shows a thousand records.
const PASS_ABOVE: usize = 100;
/// Identity records of one slice of a pass: about a minute's worth.
const SLICE_RECORDS: usize = 400_000;

/// The dependencies of a process, made once, so that a warm one remembers tokens and bases. What a function does
/// not use stays empty.
#[must_use]
pub fn deps(app: &App) -> Deps {
    let config = &app.config;
    let nobody = || Credentials { id: String::new(), secret: String::new() };
    let marketo = config.marketo.as_ref();
    let adobe = config.adobe.as_ref();
    let settings = Settings {
        time_scale: config.time_scale,
        quota_share: marketo.map_or(1.0, |marketo| marketo.quota.share),
        quota_per_day: marketo.map_or(0, |marketo| u64::from(marketo.quota.calls_per_day)),
        marketo_url: marketo.map(|marketo| marketo.base_url.clone()).unwrap_or_default(),
        marketo: marketo.map_or_else(nobody, |marketo| Credentials {
            id: marketo.client_id.expose_secret().to_owned(),
            secret: marketo.client_secret.expose_secret().to_owned(),
        }),
        ims_url: adobe.map(|adobe| adobe.ims_url.clone()).unwrap_or_default(),
        aam_url: adobe.map(|adobe| adobe.aam_url.clone()).unwrap_or_default(),
        adobe: adobe.map_or_else(nobody, |adobe| Credentials {
            id: adobe.client_id.expose_secret().to_owned(),
            secret: adobe.client_secret.expose_secret().to_owned(),
        }),
        adobe_scopes: adobe.map(|adobe| adobe.scopes.clone()).unwrap_or_default(),
        pass_above: PASS_ABOVE,
        slice_records: SLICE_RECORDS,
    };
    Deps::new(app.ports.clone(), settings)
}
