//! Adobe's audience library, by REST: Audience Manager's folders and segments. Metadata only; no API lists members.

use http::{Method, Request, Response};
use ports::{Credentials, Failure, Vendor};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use state::{Deps, Step};

/// A folder of the audience library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Adobe's id.
    pub id: u64,
    /// The folder above; `None` at the top.
    pub parent_id: Option<u64>,
    /// Its name.
    pub name: String,
}

/// A segment: an audience of Audience Manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Adobe's id; the audience is `aam:<sid>`.
    pub sid: u64,
    /// Its folder.
    pub folder_id: u64,
    /// Its name.
    pub name: String,
    /// Its description.
    pub description: String,
}

/// How long we wait for Adobe, in ms.
const TIMEOUT_MS: u64 = 20_000;
/// Segments of one page. Adobe documents no maximum; its default is 10.
const PAGE: usize = 500;

/// All segments.
pub async fn segments(deps: &Deps) -> Step<Vec<Segment>> {
    let mut found = Vec::new();
    for page in 0.. {
        let answer = get(deps, &format!("/v1/segments/?page={page}&pageSize={PAGE}")).await?;
        let rows = rows(&answer);
        found.extend(rows.iter().filter_map(|row| {
            Some(Segment {
                sid: number(&row["sid"])?,
                folder_id: number(&row["folderId"]).unwrap_or(0),
                name: row["name"].as_str().unwrap_or_default().to_owned(),
                description: row["description"].as_str().unwrap_or_default().to_owned(),
            })
        }));
        // A bare array is everything at once, whatever was asked.
        if answer.is_array() || rows.len() < PAGE {
            break;
        }
    }
    Ok(found)
}

/// All folders of segments, parents before their children.
pub async fn folders(deps: &Deps) -> Step<Vec<Folder>> {
    let answer = get(deps, "/v1/folders/segments/").await?;
    let mut found = Vec::new();
    let mut waiting: Vec<&Value> = match &answer {
        Value::Object(object) if object.contains_key("folderId") => vec![&answer],
        other => rows(other).iter().rev().collect(),
    };
    while let Some(folder) = waiting.pop() {
        let Some(id) = number(&folder["folderId"]) else { continue };
        let name = folder["name"].as_str().unwrap_or_default().to_owned();
        let parent_id = number(&folder["parentFolderId"]).filter(|parent| *parent != 0 && *parent != id);
        found.push(Folder { id, parent_id, name });
        waiting.extend(folder["subFolders"].as_array().into_iter().flatten().rev());
    }
    Ok(found)
}

/// The rows of a bare array, or of an object that wraps one.
fn rows(answer: &Value) -> &[Value] {
    match answer {
        Value::Array(rows) => rows,
        Value::Object(object) => object.values().find_map(Value::as_array).map_or(&[], Vec::as_slice),
        _ => &[],
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

async fn get(deps: &Deps, path: &str) -> Step<Value> {
    for attempt in 0..2 {
        let token = token(deps).await?;
        // After the token: asking for it may have brought other credentials.
        let credentials = deps.credentials(Vendor::Adobe).await?;
        let request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}{path}", deps.settings.aam_url.trim_end_matches('/')))
            .header("authorization", format!("Bearer {}", token.expose_secret()))
            .header("x-api-key", credentials.id.expose_secret())
            .body(Vec::new())
            .map_err(|_| Failure::fail("a request to Adobe cannot be built"))?;
        let response = deps.ports.http.send(request, deps.settings.scaled(TIMEOUT_MS)).await?;
        match response.status().as_u16() {
            200 => {
                return serde_json::from_slice(response.body())
                    .map_err(|_| Failure::retry("Adobe answered without JSON"));
            }
            401 if attempt == 0 => deps.forget_access_token(Vendor::Adobe),
            401 | 403 => {
                return Err(Failure::Outage {
                    reason: format!("Adobe refused us: HTTP {}", response.status().as_u16()),
                });
            }
            status => return Err(Failure::retry(format!("Adobe answered HTTP {status}"))),
        }
    }
    Err(Failure::Outage { reason: "Adobe refused two fresh tokens".to_owned() })
}

async fn token(deps: &Deps) -> Step<SecretString> {
    let now = deps.now();
    if let Some(token) = deps.access_token(Vendor::Adobe) {
        return Ok(token);
    }
    let credentials = deps.credentials(Vendor::Adobe).await?;
    let mut response = ask_for_token(deps, &credentials).await?;
    if refuses_credentials(&response)
        && let Some(other) = deps.credentials_instead_of(Vendor::Adobe, &credentials).await?
    {
        response = ask_for_token(deps, &other).await?;
    }
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let Some(token) = body["access_token"].as_str().filter(|_| response.status().is_success()) else {
        return Err(Failure::Outage {
            reason: format!("Adobe gave no access token: HTTP {}", response.status().as_u16()),
        });
    };
    // Used until a minute before it ends.
    let seconds = number(&body["expires_in"]).unwrap_or(0).saturating_sub(60);
    let token = SecretString::from(token);
    deps.keep_access_token(Vendor::Adobe, token.clone(), now + seconds * 1000);
    Ok(token)
}

/// Whether the credentials are not taken: `invalid_client` is answered with 401 or with 400 (RFC 6749, §5.2).
fn refuses_credentials(response: &Response<Vec<u8>>) -> bool {
    let invalid_client = || {
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        body["error"] == "invalid_client"
    };
    match response.status().as_u16() {
        401 => true,
        400 => invalid_client(),
        _ => false,
    }
}

async fn ask_for_token(deps: &Deps, credentials: &Credentials) -> Step<Response<Vec<u8>>> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", credentials.id.expose_secret())
        .append_pair("client_secret", credentials.secret.expose_secret())
        .append_pair("scope", &deps.settings.adobe_scopes)
        .finish();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/ims/token/v3", deps.settings.ims_url.trim_end_matches('/')))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.into_bytes())
        .map_err(|_| Failure::fail("a request to Adobe cannot be built"))?;
    Ok(deps.ports.http.send(request, deps.settings.scaled(TIMEOUT_MS)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_and_wrapped_answers_have_the_same_rows() {
        let bare = serde_json::json!([{"sid": 1}]);
        let wrapped = serde_json::json!({"total": 1, "page": 0, "list": [{"sid": 1}]});
        assert_eq!(rows(&bare), rows(&wrapped));
    }
}
