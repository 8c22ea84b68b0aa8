//! Who may do what.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::said::Said;
use serde_json::{Value, json};

use crate::problem::{Answer, Problem};
use crate::routes::{ROUTES, Request, Response, fits};

/// What stands before a token.
const BEARER: &str = "Bearer ";

/// What somebody may do; whoever may do more may do all that stands before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing: the token names neither of the two roles.
    Nobody,
    /// Looks, and asks what would be.
    Viewer,
    /// Everything.
    Operator,
}

impl Role {
    /// As the API names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }
}

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: what it answers stands in this repository, or every browser must read it before anybody signs in.
    Nothing,
    /// Somebody who may look.
    Viewer,
    /// Somebody who may change things, spend calls in any number, or see secrets.
    Operator,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The subject of the token: opaque at most issuers, and the same for as long as the person has an account.
    pub name: String,
    /// What they may do.
    pub role: Role,
}

impl Caller {
    /// Whoever sits at a machine whose ports nobody else reaches.
    #[must_use]
    pub fn local() -> Self {
        Self { name: "local".to_owned(), role: Role::Operator }
    }

    /// Who calls, by the claims that the authorizer has verified. `access` is `None` where nobody is asked;
    /// `authorization`: the header with the token of these claims. `None`: no authorizer stood before the route, which is
    /// right for public routes only.
    #[must_use]
    pub fn of(
        access: Option<&lambda::Access>,
        claims: Option<&BTreeMap<String, String>>,
        authorization: Option<&str>,
    ) -> Option<Self> {
        let Some(access) = access else { return Some(Self::local()) };
        let claims = claims?;
        // A token of a machine need not have a subject; it has a client.
        let name = claims.get("sub").or_else(|| claims.get("client_id")).map_or("unknown", String::as_str);
        let told = claims.get(&access.claim).map_or("", String::as_str);
        let listed = authorization.and_then(|header| listed(header, &access.claim));
        let has = |role: &str| is_among(role, told, listed.as_deref());
        let role = match (has(&access.operator), has(&access.viewer)) {
            (true, _) => Role::Operator,
            (false, true) => Role::Viewer,
            (false, false) => Role::Nobody,
        };
        Some(Self { name: name.to_owned(), role })
    }
}

/// Whether a role is a value of a claim. `told` is what the authorizer hands on: of a list it makes `[one two]`, in which
/// a group "Sales operator" looks like two. So of a list each name counts whole, as the token has it (`listed`), and
/// where the token does not show it, the only one. A text is one word or several: some issuers send `one two` or `one,two`.
fn is_among(role: &str, told: &str, listed: Option<&[String]>) -> bool {
    let words = |text: &str| text.split([' ', ',']).any(|word| word == role);
    match (told.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), listed) {
        (None, _) => words(told),
        (Some(only), None) => only == role,
        // Nothing counts that the authorizer has not handed on.
        (Some(all), Some(names)) => words(all) && names.iter().any(|name| name == role),
    }
}

/// A claim that is a list, as the token has it. The authorizer has verified the token.
fn listed(authorization: &str, claim: &str) -> Option<Vec<String>> {
    let token = match authorization.split_at_checked(BEARER.len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token,
        _ => authorization,
    };
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let payload: Value = serde_json::from_slice(&payload).ok()?;
    Some(payload.get(claim)?.as_array()?.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
}

/// Where the console signs people in. Nothing in it is secret: browsers read it before anybody has signed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// The issuer.
    pub authority: String,
    /// The console's client there.
    pub client_id: String,
    /// What is asked for.
    pub scope: String,
    /// What the token that is sent to the API must name.
    pub audience: String,
    /// Where the token endpoint is, if not at the issuer.
    pub token_origin: String,
}

impl SignIn {
    /// As the environment says; `None`: nobody signs in.
    #[must_use]
    pub fn of(access: Option<&lambda::Access>) -> Option<Self> {
        access.map(|access| Self {
            authority: access.authority.clone(),
            client_id: access.client_id.clone(),
            scope: access.scope.clone(),
            audience: access.audience.clone(),
            token_origin: access.token_origin.clone(),
        })
    }

    /// Where the console must be allowed to connect to, beside its own host.
    pub(crate) fn origins(&self) -> Vec<String> {
        let mut origins: Vec<String> =
            [&self.authority, &self.token_origin].into_iter().filter_map(|url| origin(url)).collect();
        origins.dedup();
        origins
    }
}

/// An address without its path.
fn origin(url: &str) -> Option<String> {
    let host = url.find("://")? + 3;
    let end = url[host..].find('/').map_or(url.len(), |path| host + path);
    Some(url[..end].to_owned())
}

/// What a request asks of its caller; `None`: there is no such route. A route that names its path beats one that leaves
/// a segment open.
pub(crate) fn needs(method: &str, parts: &[&str]) -> Option<Needs> {
    let found = ROUTES.iter().filter(|(of, pattern, _)| *of == method && fits(pattern, parts));
    found.min_by_key(|(_, pattern, _)| pattern.matches('*').count()).map(|(.., needs)| *needs)
}

/// Lets a request pass, or says why not.
pub(crate) fn check(request: &Request, needs: Needs) -> Answer<()> {
    let least = match needs {
        Needs::Nothing => return Ok(()),
        Needs::Viewer => Role::Viewer,
        Needs::Operator => Role::Operator,
    };
    // In AWS the authorizer has refused such a request already. Should somebody take it away, this door stays shut.
    let Some(caller) = &request.caller else {
        let detail = "this route needs a token: send it as authorization: Bearer";
        return Err(Problem::new(401, Said::new("token_missing", detail)).header("www-authenticate", "Bearer"));
    };
    if caller.role >= least {
        return Ok(());
    }
    let said = match caller.role {
        Role::Nobody => Said::new(
            "role_missing",
            "your token names neither the role viewer nor the role operator: ask whoever gives out roles",
        ),
        Role::Viewer | Role::Operator => {
            Said::new("role_too_low", "this needs the role operator, and your token says viewer")
        }
    };
    Err(Problem::new(403, said).with("needs", json!(least.name())))
}

/// `GET /me`.
pub(crate) fn me(request: &Request) -> Value {
    let caller = request.caller();
    json!({"name": caller.name, "role": caller.role.name()})
}

/// `GET /console/config`.
pub(crate) fn config(request: &Request) -> Response {
    let auth = request.sign_in.as_ref().map(|sign_in| {
        json!({
            "authority": sign_in.authority,
            "client_id": sign_in.client_id,
            "scope": sign_in.scope,
            "audience": sign_in.audience,
        })
    });
    let mut response = Response::json(200, &json!({"auth": auth, "version": env!("CARGO_PKG_VERSION")}));
    response.headers.push(("cache-control", "no-cache".to_owned()));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> lambda::Access {
        lambda::Access {
            authority: "https://id.example/pool".into(),
            audience: "client".into(),
            client_id: "client".into(),
            scope: "openid".into(),
            token_origin: "https://pool.auth.example".into(),
            claim: "groups".into(),
            operator: "operator".into(),
            viewer: "viewer".into(),
        }
    }

    fn role(told: &str, authorization: Option<&str>) -> Role {
        let claims = BTreeMap::from([("groups".to_owned(), told.to_owned()), ("sub".to_owned(), "s".to_owned())]);
        Caller::of(Some(&access()), Some(&claims), authorization).expect("a caller").role
    }

    /// The header of a token of these groups, and what the authorizer makes of them.
    fn of_groups(groups: &[&str]) -> (String, String) {
        let payload = URL_SAFE_NO_PAD.encode(json!({"sub": "s", "groups": groups}).to_string());
        (format!("Bearer e30.{payload}.signature"), format!("[{}]", groups.join(" ")))
    }

    #[test]
    fn roles_are_read_from_every_form_of_the_claim() {
        for one in ["operator", "[operator]", "viewer,operator", "x operator", "viewer, operator"] {
            assert_eq!(role(one, None), Role::Operator, "{one}");
        }
        for one in ["viewer", "[viewer]", "x viewer", "viewer, x"] {
            assert_eq!(role(one, None), Role::Viewer, "{one}");
        }
        for one in ["", "[]", "operators", "[Operator]", "no-operator", "operator]", "[my_viewer]"] {
            assert_eq!(role(one, None), Role::Nobody, "{one}");
        }
        assert_eq!(Caller::of(Some(&access()), Some(&BTreeMap::new()), None).expect("a caller").role, Role::Nobody);
    }

    #[test]
    fn names_of_a_list_count_whole() {
        for (groups, expected) in [
            (&["viewer", "operator"][..], Role::Operator),
            (&["Sales operator", "viewer"], Role::Viewer),
            (&["Sales operator"], Role::Nobody),
            (&["operator viewer"], Role::Nobody),
            (&["viewer,operator"], Role::Nobody),
            (&["Sales operator", "operator"], Role::Operator),
            (&[], Role::Nobody),
        ] {
            let (header, told) = of_groups(groups);
            assert_eq!(role(&told, Some(&header)), expected, "{groups:?}");
            let lower = header.replace("Bearer", "bearer");
            assert_eq!(role(&told, Some(&lower)), expected, "{groups:?}");
            assert_eq!(role(&told, header.strip_prefix(BEARER)), expected, "{groups:?}, without the scheme");
        }
        // Without a token that shows it a list of several words is nobody's.
        for header in [None, Some(""), Some("Bearer"), Some("Bearer a.b.c"), Some("Bearer e30.e30.e30")] {
            assert_eq!(role("[viewer operator]", header), Role::Nobody, "{header:?}");
        }
        // A token that names more than the authorizer has handed on.
        let (header, _) = of_groups(&["operator"]);
        assert_eq!(role("[viewer x]", Some(&header)), Role::Nobody);
    }

    #[test]
    fn who_shows_no_token_is_nobody_unless_nobody_is_asked() {
        assert_eq!(Caller::of(Some(&access()), None, None), None);
        assert_eq!(Caller::of(None, None, None), Some(Caller::local()));
    }

    #[test]
    fn the_console_connects_to_the_issuer_and_its_token_endpoint() {
        let mut access = access();
        let sign_in = SignIn::of(Some(&access)).expect("asked");
        assert_eq!(sign_in.origins(), ["https://id.example", "https://pool.auth.example"]);
        access.token_origin = String::new();
        assert_eq!(SignIn::of(Some(&access)).expect("asked").origins(), ["https://id.example"]);
    }
}
