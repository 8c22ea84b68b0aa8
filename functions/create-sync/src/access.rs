//! Who may do what.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::problem::{Answer, Problem};
use crate::routes::{ROUTES, Request, Response, fits};

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

    /// Who calls, by the claims that the authorizer has verified. `access` is `None` where nobody is asked. `None`: no
    /// authorizer stood before the route, which is right for public routes only.
    #[must_use]
    pub fn of(access: Option<&lambda::Access>, claims: Option<&BTreeMap<String, String>>) -> Option<Self> {
        let Some(access) = access else { return Some(Self::local()) };
        let claims = claims?;
        // A token of a machine need not have a subject; it has a client.
        let name = claims.get("sub").or_else(|| claims.get("client_id")).map_or("unknown", String::as_str);
        let mut role = Role::Nobody;
        for value in claims.get(&access.claim).map(|text| values(text)).into_iter().flatten() {
            if value == access.operator {
                role = Role::Operator;
            } else if value == access.viewer {
                role = role.max(Role::Viewer);
            }
        }
        Some(Self { name: name.to_owned(), role })
    }
}

/// The values of a claim: the authorizer writes a list as `[one two]`, and some issuers send one as `one two` or
/// `one,two`. A value with a blank of its own cannot be told from two.
fn values(claim: &str) -> impl Iterator<Item = &str> {
    let inner = claim.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(claim);
    inner.split([' ', ',']).filter(|value| !value.is_empty())
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
        return Err(Problem::new(401, "this route needs a token: send it as authorization: Bearer")
            .header("www-authenticate", "Bearer"));
    };
    if caller.role >= least {
        return Ok(());
    }
    Err(Problem::new(
        403,
        match caller.role {
            Role::Nobody => {
                "your token names neither the role viewer nor the role operator: ask whoever gives out roles"
            }
            Role::Viewer | Role::Operator => "this needs the role operator, and your token says viewer",
        },
    )
    .with("needs", json!(least.name())))
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

    fn role(groups: &str) -> Role {
        let claims = BTreeMap::from([("groups".to_owned(), groups.to_owned()), ("sub".to_owned(), "s".to_owned())]);
        Caller::of(Some(&access()), Some(&claims)).expect("a caller").role
    }

    #[test]
    fn roles_are_read_from_every_form_of_the_claim() {
        for one in ["operator", "[operator]", "[viewer operator]", "[operator viewer]", "viewer,operator", "x operator"]
        {
            assert_eq!(role(one), Role::Operator, "{one}");
        }
        for one in ["viewer", "[x viewer]", "viewer, x"] {
            assert_eq!(role(one), Role::Viewer, "{one}");
        }
        for one in ["", "[]", "operators", "[Operator]", "no-operator", "operator]", "[my_viewer]"] {
            assert_eq!(role(one), Role::Nobody, "{one}");
        }
        assert_eq!(Caller::of(Some(&access()), Some(&BTreeMap::new())).expect("a caller").role, Role::Nobody);
    }

    #[test]
    fn who_shows_no_token_is_nobody_unless_nobody_is_asked() {
        assert_eq!(Caller::of(Some(&access()), None), None);
        assert_eq!(Caller::of(None, None), Some(Caller::local()));
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
