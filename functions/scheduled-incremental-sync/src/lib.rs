//! Takes in feeds, asks Marketo who owns which token, follows Marketo's activities, and works out who is wanted in
//! which audience. It never calls Marketo's list-membership endpoints.

mod alerts;
mod audience;
mod edges;
mod identity;
mod import;
mod library;
mod lists_index;
mod look;
mod pass;
mod preview;
mod propagate;
mod sizes;
mod stream;
mod watched;

use futures::future::BoxFuture;
use ports::Failure;
use state::bell::{Kind, Ring};
use state::{Cause, Causes, Deps, Step, bell};

pub use import::{Arrival, arrivals, arrived, backstop};
pub use lists_index::go_on as index_lists;
pub use stream::heard;

/// What the function reads from its environment.
pub const USES: lambda::Uses = lambda::Uses {
    tables: &ports::Table::ALL,
    queues: &[ports::Queue::IdentityWork, ports::Queue::AudienceWork, ports::Queue::ListWrites],
    bucket: true,
    matches: true,
    marketo: true,
    adobe: true,
    streams: false,
    access: false,
    alerts: true,
};

/// Handles one ring of identity work, of a subscription's edges or of an audience. Replay is harmless: the work is recomputed from state.
///
/// Boxed here, as [`tick`]: an `async fn` would be compiled anew with each crate that awaits it.
pub fn handle<'a>(deps: &'a Deps, ring: &'a Ring, deadline: u64) -> BoxFuture<'a, Step<()>> {
    Box::pin(handled(deps, ring, deadline))
}

async fn handled(deps: &Deps, ring: &Ring, deadline: u64) -> Step<()> {
    let munchkin = &ring.key.munchkin;
    match ring.key.kind {
        Kind::Identity => {
            let work = |deps: Deps| async move {
                // Where nobody said why, as where a page has shown a match, it is our own look-up that learns of it.
                let why = if deps.why().is_empty() { Causes::from([Cause::Schedule]) } else { deps.why().clone() };
                identity::work(&deps.because(why), munchkin, deadline).await
            };
            bell::handle_knowing(deps, ring, work).await
        }
        Kind::Edges => {
            let work = |deps: Deps| async move { edges::work(&deps, munchkin, deadline).await };
            bell::handle_knowing(deps, ring, work).await
        }
        Kind::Audience => {
            let Some(audience) = domain::AudienceId::parse(&ring.key.id) else {
                return Err(Failure::fail("a ring of an audience without an audience id"));
            };
            let work = |deps: Deps| async move { audience::work(&deps, munchkin, &audience, deadline).await };
            bell::handle_knowing(deps, ring, work).await
        }
        Kind::List => Err(Failure::fail("a ring of a list is not for this function")),
    }
}

/// Time that a tick keeps for its end, in ms.
const RESERVE_MS: u64 = 15_000;

/// The tick: rings what was not rung, asks Adobe what its audiences are called, says what is wrong, takes in files whose
/// notification was lost, and looks at deliveries whose time has come. None of these hinders another: what may use up the
/// time, or be killed with all that it holds, comes last.
pub fn tick(deps: &Deps, deadline: u64) -> BoxFuture<'_, Step<()>> {
    Box::pin(ticked(deps, deadline))
}

async fn ticked(deps: &Deps, deadline: u64) -> Step<()> {
    // What stops at the deadline still has to say so.
    let deadline = deadline.saturating_sub(deps.settings.scaled(RESERVE_MS));
    let swept = bell::sweep(deps).await;
    let refreshed = library::refresh(deps, deadline).await;
    let alerted = alerts::check(deps, deadline).await;
    // Every quarter of an hour: a delivery that uses up each tick must not keep it off for ever.
    let listed = backstop(deps, deadline).await;
    let looked = import::due(deps, deadline).await;
    swept.and(refreshed).and(alerted).and(listed).and(looked)
}
