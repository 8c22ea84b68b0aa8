//! Access tokens of Adobe's IMS, and calls that bear one.

use http::{Method, Request, Response};
use ports::{Credentials, Failure, Vendor};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use state::{Deps, Step};

use crate::number;

/// How long we wait for Adobe, in ms.
const TIMEOUT_MS: u64 = 20_000;

/// What is called.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Api {
    AudienceManager,
    Platform,
    Folders,
}

impl Api {
    const fn name(self) -> &'static str {
        match self {
            Self::AudienceManager => "Audience Manager",
            Self::Platform => "Experience Platform",
            Self::Folders => "Experience Platform's folders",
        }
    }

    fn base(self, deps: &Deps) -> &str {
        let settings = &deps.settings;
        match self {
            Self::AudienceManager => &settings.aam_url,
            Self::Platform => &settings.aep_url,
            Self::Folders => &settings.aep_folders_url,
        }
    }

    /// What the credential lacks where a call is forbidden.
    fn grant(self, deps: &Deps) -> String {
        let sandbox = &deps.settings.aep_sandbox;
        match self {
            Self::AudienceManager => {
                "put the credential's technical account into an Audience Manager group that may view segments"
                    .to_owned()
            }
            Self::Platform => format!(
                "give the credential's technical account a role that may view segments and profiles in the sandbox \
                 \"{sandbox}\", with the labels that its audiences bear"
            ),
            Self::Folders => format!(
                "give the credential's technical account a role that may view the folders of segments in the sandbox \
                 \"{sandbox}\""
            ),
        }
    }
}

/// The address of a listing is wrong: this is no word about any audience.
pub(crate) fn not_there(api: Api) -> Failure {
    Failure::retry(format!("{} answered HTTP 404", api.name()))
}

/// An answer that is JSON and not what it should be: this is no word about any audience either.
pub(crate) fn unreadable(api: Api) -> Failure {
    Failure::retry(format!("{} answered with something else than what was asked for", api.name()))
}

/// Gets a document; `None`: there is none (404).
pub(crate) async fn get(deps: &Deps, api: Api, path: &str, headers: &[(&str, &str)]) -> Step<Option<Value>> {
    for attempt in 0..2 {
        let token = token(deps).await?;
        // After the token: asking for it may have brought other credentials.
        let credentials = deps.credentials(Vendor::Adobe).await?;
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("{}{path}", api.base(deps).trim_end_matches('/')))
            .header("authorization", format!("Bearer {}", token.expose_secret()))
            .header("x-api-key", credentials.id.expose_secret());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Vec::new()).map_err(|_| Failure::fail("a request to Adobe cannot be built"))?;
        let response = deps.ports.http.send(request, deps.settings.scaled(TIMEOUT_MS)).await?;
        let name = api.name();
        match response.status().as_u16() {
            200 => {
                let body = serde_json::from_slice(response.body());
                return body.map(Some).map_err(|_| Failure::retry(format!("{name} answered without JSON")));
            }
            404 => return Ok(None),
            401 if attempt == 0 => deps.forget_access_token(Vendor::Adobe),
            401 => return Err(Failure::Outage { reason: format!("{name} refused us: HTTP 401") }),
            403 => {
                let code = platform_code(response.body()).map(|code| format!(" ({code})")).unwrap_or_default();
                let reason = format!("{name} refused us: HTTP 403{code}: {}", api.grant(deps));
                return Err(Failure::Outage { reason });
            }
            status => return Err(Failure::retry(format!("{name} answered HTTP {status}"))),
        }
    }
    Err(Failure::Outage { reason: "Adobe refused two fresh tokens".to_owned() })
}

/// The code of Experience Platform's refusal, such as `UPAPI-113752`, wherever in the answer it stands.
fn platform_code(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let digits: String = body.split_once("UPAPI-")?.1.chars().take_while(char::is_ascii_digit).take(9).collect();
    (!digits.is_empty()).then(|| format!("UPAPI-{digits}"))
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
    deps.keep_access_token(Vendor::Adobe, token.clone(), now.saturating_add(seconds.saturating_mul(1_000)));
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
