//! Adobe: the credential, Audience Manager's library, and Experience Platform's. The two libraries share the credential,
//! so that they are asked one after the other.

use domain::AudienceId;
use ports::{Failure, Vendor};
use serde_json::json;
use state::feeds::{Kind, feeds};
use state::{Deps, Step};

use super::{About, Area, Check, Row, in_time, words};

const CREDENTIALS: About = About {
    code: "adobe_credentials",
    area: Area::Adobe,
    title: "Adobe credentials",
    who: "Developer of the IMS organisation and operator of audience-sync",
    place: "Adobe Developer Console: the project's OAuth server-to-server credential; AWS: Secrets Manager, the secret of the \
            parameter AdobeSecretArn, and the parameter AdobeScopes",
};
const MANAGER: About = About {
    code: "audience_manager_library",
    area: Area::Adobe,
    title: "Audience Manager's folders",
    who: "Audience Manager administrator",
    place: "Audience Manager: Administration > Groups, a group of the credential's technical account",
};
const PLATFORM: About = About {
    code: "experience_platform_library",
    area: Area::Adobe,
    title: "Experience Platform's audiences",
    who: "Experience Platform administrator",
    place: "Experience Platform: Permissions > Roles, a role of the credential's technical account in the sandbox",
};
const FOLDERS: About = About {
    code: "experience_platform_folders",
    area: Area::Adobe,
    title: "Experience Platform's folders",
    who: "Experience Platform administrator",
    place: "Experience Platform: Permissions > Roles, a role of the credential's technical account in the sandbox",
};

/// An audience that does not exist: being told so needs the right to look.
const NO_AUDIENCE: &str = "00000000-0000-4000-8000-000000000000";

const TRIED_TOKEN: &str = "asking Adobe for an access token";
const TRIED_MANAGER: &str = "listing the folders of segments";
const TRIED_PLATFORM: &str = "asking for an audience that does not exist, or else for all";
const TRIED_FOLDERS: &str = "listing the folders of audiences";

pub(super) async fn rows(check: &Check<'_>) -> Vec<Row> {
    let Check { deps, subscription, until, .. } = check;
    let (mut rows, signed_in) = manager(deps, *until, manager_is_needed(check).await).await;
    if !adobe::is_used(deps) {
        let means = "Experience Platform is not set up here: the parameter AdobeAepSandbox names no sandbox.";
        rows.extend([PLATFORM, FOLDERS].map(|about| about.not_used("no_sandbox", means)));
        return rows;
    }
    let Some(org) = subscription.org_id.as_ref() else {
        let means = "Nothing was tried: no IMS organisation is mapped to the Marketo instance.";
        rows.extend([PLATFORM, FOLDERS].map(|about| about.not_seen("no_organisation", "nothing", means)));
        return rows;
    };
    if !signed_in {
        rows.extend([PLATFORM, FOLDERS].map(not_signed_in));
        return rows;
    }
    let sandbox = json!(deps.settings.aep_sandbox);
    let platform = match AudienceId::aep(NO_AUDIENCE) {
        Some(none) => in_time(deps, *until, adobe::audience(deps, org, &none)).await,
        None => None,
    };
    let platform = match platform {
        // How the question about one that does not exist is answered is Adobe's to choose. The listing is no matter of taste.
        Some(Err(Failure::Retry { .. })) => {
            in_time(deps, *until, adobe::audiences(deps, org)).await.map(|all| all.map(drop))
        }
        asked => asked.map(|asked| asked.map(drop)),
    };
    rows.push(match platform {
        Some(Ok(())) => {
            PLATFORM.ok("shown", TRIED_PLATFORM, "Experience Platform lets us look at the audiences of the sandbox.")
        }
        other => refused(PLATFORM, TRIED_PLATFORM, other),
    });
    rows.push(match in_time(deps, *until, adobe::aep_folders(deps, org)).await {
        Some(Ok(folders)) => {
            let means = format!("Folders that Experience Platform shows: {}.", folders.len());
            FOLDERS.ok("shown", TRIED_FOLDERS, means).with("folders", json!(folders.len()))
        }
        other => refused(FOLDERS, TRIED_FOLDERS, other),
    });
    rows.into_iter()
        .map(|row| {
            if row.code == PLATFORM.code || row.code == FOLDERS.code {
                row.with("sandbox", sandbox.clone())
            } else {
                row
            }
        })
        .collect()
}

/// Where nobody has said which Marketo instance it is: Audience Manager's library is the organisation's.
pub(super) async fn without_subscription(deps: &Deps, until: u64) -> Vec<Row> {
    manager(deps, until, true).await.0
}

/// Whether anything comes from Audience Manager, or nothing could come from elsewhere.
async fn manager_is_needed(check: &Check<'_>) -> bool {
    let Check { deps, subscription, syncs, .. } = check;
    // Where the feeds cannot be read, their own rows say so.
    let feeds = feeds(deps, &subscription.munchkin_id).await.unwrap_or_default();
    !adobe::is_used(deps)
        || syncs.iter().any(|sync| sync.audience.sid().is_some())
        || feeds.iter().any(|feed| matches!(feed.kind, Kind::AamFiles | Kind::AamStream))
}

/// The rows of the credential and of Audience Manager, and whether a token was given.
async fn manager(deps: &Deps, until: u64, needed: bool) -> (Vec<Row>, bool) {
    // A token that was given before would hide that the credential is not taken any more.
    deps.forget_access_token(Vendor::Adobe);
    let asked = in_time(deps, until, adobe::folders(deps)).await;
    // The token is asked for first: whatever Audience Manager says, there is one if the credential is taken.
    let signed_in = deps.access_token(Vendor::Adobe).is_some();
    let credential = if signed_in {
        CREDENTIALS.ok("taken", TRIED_TOKEN, "Adobe takes the client id, the secret and the scopes.")
    } else {
        match &asked {
            Some(Err(Failure::Outage { reason })) => {
                let means = format!(
                    "Adobe does not take the credential ({reason}): no folder and no audience can be shown, and no sync can be \
                     created."
                );
                CREDENTIALS.not_ok("refused", TRIED_TOKEN, means)
            }
            Some(Err(failure)) => {
                let means = format!("Adobe did not answer ({}).", words(failure));
                CREDENTIALS.not_seen("no_answer", TRIED_TOKEN, means)
            }
            Some(Ok(_)) | None => CREDENTIALS.not_in_time(TRIED_TOKEN),
        }
    };
    let library = match asked {
        Some(Ok(folders)) => {
            let means = format!("Folders that Audience Manager shows: {}.", folders.len());
            MANAGER.ok("shown", TRIED_MANAGER, means).with("folders", json!(folders.len()))
        }
        _ if !needed => {
            let means = "No feed and no sync is of Audience Manager, and its library is not open to the credential.";
            MANAGER.not_used("not_needed", means)
        }
        _ if !signed_in => not_signed_in(MANAGER),
        other => refused(MANAGER, TRIED_MANAGER, other),
    };
    (vec![credential, library], signed_in)
}

fn not_signed_in(about: About) -> Row {
    about.not_seen("not_signed_in", "nothing", "Nothing was tried: Adobe gave no access token.")
}

/// A library that was not shown. Adobe's refusals say what the credential lacks.
fn refused<T>(about: About, tried: &str, asked: Option<Step<T>>) -> Row {
    match asked {
        None | Some(Ok(_)) => about.not_in_time(tried),
        Some(Err(Failure::Outage { reason })) => {
            let means = format!("Adobe refuses ({reason}): its audiences cannot be chosen.");
            about.not_ok("refused", tried, means)
        }
        Some(Err(failure)) => {
            about.not_seen("no_answer", tried, format!("There was no clear answer ({}).", words(&failure)))
        }
    }
}
