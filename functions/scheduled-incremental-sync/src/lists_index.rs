//! Builds the index of all static lists, page by page, when somebody wants one.

use domain::MunchkinId;
use domain::limits::MARKETO_BATCH;
use marketo::class::Class;
use marketo::{CallError, MARGIN_MS, Marketo};
use state::Deps;
use state::budget::Purpose;
use state::lists_index::{LISTS_MOST, Listed, begin, drop_build, keep, publish};

/// Lists that are read before they are written down: what a death may cost is ten calls.
const LISTS_KEPT: usize = 10 * MARKETO_BATCH;

/// Goes on with the index of a subscription's lists, if somebody wants one. `true`: there is more to do, and no time.
/// An index that Marketo refuses is given up, so that it blocks nothing else; whoever searches next begins it again.
///
/// Replay is harmless: the next call goes on after the last page that was written down.
pub async fn go_on(deps: &Deps, munchkin: &MunchkinId, marketo: Marketo<'_>, deadline: u64) -> Result<bool, CallError> {
    let marketo = marketo.calling_for(Purpose::Poll);
    let Some(mut building) = begin(deps, munchkin).await? else { return Ok(false) };
    loop {
        let mut lists = Vec::new();
        let mut next = building.next.clone();
        let end = loop {
            if deps.now() + deps.settings.scaled(MARGIN_MS) > deadline {
                break Some(Ok(true));
            }
            match page(&marketo, next.as_deref()).await {
                Ok((read, None)) => {
                    lists.extend(read);
                    publish(deps, munchkin, &building, lists).await?;
                    return Ok(false);
                }
                Ok((_, token)) if token == next => break Some(Ok(false)),
                Ok((read, token)) => {
                    lists.extend(read);
                    next = token;
                }
                // Such as a paging token that is too old.
                Err(error) if is_refused(&error) => break Some(Ok(false)),
                Err(error) => break Some(Err(error)),
            }
            if building.count + lists.len() as u64 > LISTS_MOST {
                break Some(Ok(false));
            }
            if lists.len() >= LISTS_KEPT {
                break None;
            }
        };
        if matches!(end, Some(Ok(false))) {
            tracing::warn!(lists = building.count + lists.len() as u64, "the index of lists is given up");
            drop_build(deps, munchkin, &building).await?;
        } else if let (Some(next), false) = (&next, lists.is_empty()) {
            building = keep(deps, munchkin, &building, &lists, next).await?;
        }
        if let Some(answer) = end {
            return answer;
        }
    }
}

/// Refused for what was asked, and not because the whole instance refuses us.
fn is_refused(error: &CallError) -> bool {
    matches!(error, CallError::Refused { .. }) && !matches!(error.class(), Some(Class::Alarm | Class::RetryThenAlarm))
}

async fn page(marketo: &Marketo<'_>, next: Option<&str>) -> Result<(Vec<Listed>, Option<String>), CallError> {
    let (lists, token) = marketo.lists_page(marketo.slot().await?, next).await?;
    let lists = lists.into_iter().map(|list| Listed { id: list.id, name: list.name, workspace: list.workspace });
    Ok((lists.collect(), token))
}
