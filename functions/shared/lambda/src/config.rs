//! The environment, declared once: what is read, what it means, and the tables in the READMEs come from here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws::Source;
use ports::{Credentials, Queue, StreamSecrets, Table, Vendor};
use secrecy::{ExposeSecret as _, SecretString};

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// What counts when it is not set or empty; `None`: it must be set.
    pub default: Option<&'static str>,
}

const fn required(name: &'static str, about: &'static str) -> Variable {
    Variable { name, about, default: None }
}

const fn optional(name: &'static str, about: &'static str, default: &'static str) -> Variable {
    Variable { name, about, default: Some(default) }
}

const TIME_SCALE: Variable =
    optional("TIME_SCALE", "Factor on every waiting time; below 1 in tests and the local stack.", "1");
const LOG_LEVEL: Variable =
    optional("LOG_LEVEL", "Least level of our own log lines: error, warn, info, debug or trace.", "info");
const MATCH_LIFETIME_DAYS: Variable =
    optional("MATCH_LIFETIME_DAYS", "How long a match counts after its last sight, in days; above 30.", "396");
const BUCKET: Variable = required("BUCKET", "Bucket of arriving files and of the big sets.");
const MARKETO_BASE_URL: Variable =
    optional("MARKETO_BASE_URL", "Base of Marketo's REST API; empty: `https://<Munchkin id>.mktorest.com`.", "");
// Either the ARN, or id and secret (`CredentialVariables::load`).
const MARKETO: CredentialVariables = CredentialVariables {
    arn: optional(
        "MARKETO_SECRET_ARN",
        "ARN of the secret with `client_id` and `client_secret` of the Marketo custom service; empty: the next two count.",
        "",
    ),
    id: optional("MARKETO_CLIENT_ID", "Client id of the Marketo custom service, where no secret is named.", ""),
    secret: optional(
        "MARKETO_CLIENT_SECRET",
        "Client secret of the Marketo custom service, where no secret is named.",
        "",
    ),
};
// Half is the design's default (§4, 7); 50,000 calls a day is what an instance has unless more was bought.
const QUOTA_SHARE: Variable = optional(
    "QUOTA_SHARE",
    "Our share of each of Marketo's limits: 100 calls in a rolling 20 s, 10 at once, and the calls a day.",
    "0.5",
);
const QUOTA_CALLS_PER_DAY: Variable =
    optional("QUOTA_CALLS_PER_DAY", "Calls a day that Marketo allows the instance, all tools together.", "50000");
const ADOBE_IMS_URL: Variable =
    optional("ADOBE_IMS_URL", "Base of Adobe's token endpoint.", "https://ims-na1.adobelogin.com");
const ADOBE_AAM_URL: Variable =
    optional("ADOBE_AAM_URL", "Base of Audience Manager's REST API.", "https://aam.adobe.io");
const ADOBE_AEP_URL: Variable =
    optional("ADOBE_AEP_URL", "Base of Experience Platform's API.", "https://platform.adobe.io");
const ADOBE_AEP_FOLDERS_URL: Variable = optional(
    "ADOBE_AEP_FOLDERS_URL",
    "Base of the API of Experience Platform's folders.",
    "https://experience.adobe.io",
);
const ADOBE_AEP_SANDBOX: Variable =
    optional("ADOBE_AEP_SANDBOX", "Sandbox of Experience Platform; empty: Experience Platform is not used.", "");
const ADOBE: CredentialVariables = CredentialVariables {
    arn: optional(
        "ADOBE_SECRET_ARN",
        "ARN of the secret with `client_id` and `client_secret` of the Adobe credential; empty: the next two count.",
        "",
    ),
    id: optional("ADOBE_CLIENT_ID", "Client id of the Adobe credential, where no secret is named.", ""),
    secret: optional("ADOBE_CLIENT_SECRET", "Client secret of the Adobe credential, where no secret is named.", ""),
};
const ADOBE_SCOPES: Variable = required(
    "ADOBE_SCOPES",
    "Scopes of the Adobe credential, separated by commas, as the Developer Console shows them.",
);
const STREAM_SECRET_ARN: Variable = optional(
    "STREAM_SECRET_ARN",
    "ARN of the secret with the keys, tokens and clients of streams, by feed; empty: the next one counts.",
    "",
);
const STREAM_SECRETS: Variable = optional(
    "STREAM_SECRETS",
    "The keys, tokens and clients of streams themselves, as JSON, where no secret is named; empty as well: no stream is \
     taken.",
    "",
);
const AUTH: Variable = optional(
    "AUTH",
    "`jwt`: a control route needs a token that the API's authorizer has verified. `none`: it needs none, and whoever calls \
     is an operator; for the local stack, whose ports nobody else reaches.",
    "jwt",
);
const AUTH_AUTHORITY: Variable =
    optional("AUTH_AUTHORITY", "Issuer of the tokens, where the console signs in; required with `jwt`.", "");
const AUTH_AUDIENCE: Variable =
    optional("AUTH_AUDIENCE", "Audience that the authorizer asks of a token; required with `jwt`.", "");
const AUTH_CLIENT_ID: Variable = optional(
    "AUTH_CLIENT_ID",
    "Client id of the console at the issuer; empty: it is the audience, as with Cognito.",
    "",
);
const AUTH_SCOPE: Variable =
    optional("AUTH_SCOPE", "Scopes that the console asks for, separated by blanks.", "openid profile");
const AUTH_TOKEN_ORIGIN: Variable = optional(
    "AUTH_TOKEN_ORIGIN",
    "Origin of the issuer's token endpoint, where it is not the issuer's own: with Cognito that of its domain.",
    "",
);
const AUTH_CLAIM: Variable = optional(
    "AUTH_CLAIM",
    "Claim that says what a caller may do: a text, whose values are set off by blanks, or a list of whole names.",
    "cognito:groups",
);
const AUTH_OPERATOR: Variable =
    optional("AUTH_OPERATOR", "Value of that claim of whoever may do everything.", "operator");
const AUTH_VIEWER: Variable = optional("AUTH_VIEWER", "Value of that claim of whoever may look.", "viewer");

const EVENT_BUS: Variable = optional(
    "EVENT_BUS",
    "EventBridge's bus, by name or ARN, that hears of incidents and of runs that have ended; empty: none does.",
    "",
);
const DEAD_QUEUE_URLS: Variable =
    optional("DEAD_QUEUE_URLS", "URLs of the dead-letter queues that are watched, separated by commas.", "");

/// What a function uses: each function declares one as a constant.
#[derive(Debug, Clone, Copy)]
pub struct Uses {
    /// Tables.
    pub tables: &'static [Table],
    /// Queues that it sends to.
    pub queues: &'static [Queue],
    /// Whether it reads or writes the bucket.
    pub bucket: bool,
    /// Whether it stores matches or lets them expire.
    pub matches: bool,
    /// Whether it calls Marketo.
    pub marketo: bool,
    /// Whether it calls Adobe.
    pub adobe: bool,
    /// Whether it takes streams.
    pub streams: bool,
    /// Whether it asks who calls.
    pub access: bool,
    /// Whether it says when something is wrong.
    pub alerts: bool,
}

impl Uses {
    /// Nothing but what every function has.
    pub const NOTHING: Self = Self {
        tables: &[],
        queues: &[],
        bucket: false,
        matches: false,
        marketo: false,
        adobe: false,
        streams: false,
        access: false,
        alerts: false,
    };

    /// The variables that such a function reads, in the order of the documentation.
    #[must_use]
    pub fn variables(&self) -> Vec<Variable> {
        let mut all = vec![TIME_SCALE, LOG_LEVEL];
        all.extend(self.tables.iter().map(|table| required(table.env(), table_about(*table))));
        all.extend(self.queues.iter().map(|queue| required(queue.env(), queue_about(*queue))));
        if self.bucket {
            all.push(BUCKET);
        }
        if self.matches {
            all.push(MATCH_LIFETIME_DAYS);
        }
        if self.marketo {
            all.push(MARKETO_BASE_URL);
            all.extend(MARKETO.all());
            all.extend([QUOTA_SHARE, QUOTA_CALLS_PER_DAY]);
        }
        if self.adobe {
            all.extend([ADOBE_IMS_URL, ADOBE_AAM_URL, ADOBE_AEP_URL, ADOBE_AEP_FOLDERS_URL, ADOBE_AEP_SANDBOX]);
            all.extend(ADOBE.all());
            all.push(ADOBE_SCOPES);
        }
        if self.alerts {
            all.extend([EVENT_BUS, DEAD_QUEUE_URLS]);
        }
        if self.streams {
            all.extend([STREAM_SECRET_ARN, STREAM_SECRETS]);
        }
        if self.access {
            all.extend([AUTH, AUTH_AUTHORITY, AUTH_AUDIENCE, AUTH_CLIENT_ID, AUTH_SCOPE, AUTH_TOKEN_ORIGIN]);
            all.extend([AUTH_CLAIM, AUTH_OPERATOR, AUTH_VIEWER]);
        }
        all
    }

    /// The variables as a markdown table, for the function's README.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut table = String::from("| variable | meaning | default |\n|---|---|---|\n");
        for Variable { name, about, default } in self.variables() {
            let default = match default {
                None => "required".to_owned(),
                Some("") => "empty".to_owned(),
                Some(value) => format!("`{value}`"),
            };
            // Writing to a string does not fail.
            writeln!(table, "| `{name}` | {about} | {default} |").expect("a string takes it");
        }
        table
    }

    /// Reads and checks the environment. `variable` gives a variable's value, as `std::env::var` does.
    ///
    /// # Errors
    /// The first variable that is missing or malformed, by name; never its value.
    pub fn load(&self, variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
        let env = Env(variable);
        for declared in self.variables() {
            env.text(&declared)?;
        }
        Ok(Config {
            time_scale: env.parse(&TIME_SCALE, "a number above 0", |text| {
                text.parse().ok().filter(|scale: &f64| scale.is_finite() && *scale > 0.0)
            })?,
            // The last sight is stored with a grain of 30 days: below it, whoever comes each day would expire.
            match_lifetime_days: env.parse(&MATCH_LIFETIME_DAYS, "a whole number above 30", |text| {
                text.parse().ok().filter(|days: &u32| *days > 30)
            })?,
            log_level: env.parse(&LOG_LEVEL, "error, warn, info, debug or trace", |text| text.parse().ok())?,
            marketo: if self.marketo { Some(Marketo::load(&env)?) } else { None },
            adobe: if self.adobe { Some(Adobe::load(&env)?) } else { None },
            streams: if self.streams { Some(streams(&env)?) } else { None },
            access: if self.access { Access::load(&env)? } else { None },
        })
    }
}

fn table_about(table: Table) -> &'static str {
    match table {
        Table::Syncs => "Table of subscriptions, feeds, syncs, imports, cursors and budgets.",
        Table::Identity => "Table of tokens, leads and the hints that lead to them.",
        Table::Audiences => "Table of audience heads and overlay rows.",
        Table::Lists => "Table of list states and of what syncs want.",
        Table::Doorbells => "Table of the keys that wait for work.",
    }
}

fn queue_about(queue: Queue) -> &'static str {
    match queue {
        Queue::Matches => "Queue of validated matches.",
        Queue::Events => "Queue of verified entries of streams.",
        Queue::IdentityWork => "FIFO queue that rings for a subscription's identity work.",
        Queue::AudienceWork => "FIFO queue that rings for an audience.",
        Queue::ListWrites => "FIFO queue that rings for a subscription's lists.",
    }
}

/// What a function was told by its environment. Names of tables, queues and the bucket are read by the adapters.
#[derive(Debug, Clone)]
pub struct Config {
    /// Factor on every waiting time.
    pub time_scale: f64,
    /// How long a match counts after its last sight, in days.
    pub match_lifetime_days: u32,
    /// Least level of our own log lines.
    pub log_level: tracing::Level,
    /// Marketo; `None`: the function does not declare it.
    pub marketo: Option<Marketo>,
    /// Adobe; `None`: the function does not declare it.
    pub adobe: Option<Adobe>,
    /// Where the secrets of streams are; `None`: the function takes none.
    pub streams: Option<Source<StreamSecrets>>,
    /// Whose tokens are asked for; `None`: nobody's, or the function does not declare it.
    pub access: Option<Access>,
}

impl Config {
    /// `ms` milliseconds, scaled, rounded up.
    #[must_use]
    pub fn scaled_ms(&self, ms: u64) -> u64 {
        scaled_ms(ms, self.time_scale)
    }

    /// Where the credentials are of the vendors that the function calls.
    #[must_use]
    pub fn secrets(&self) -> BTreeMap<Vendor, Source> {
        let marketo = self.marketo.iter().map(|marketo| (Vendor::Marketo, marketo.credentials.clone()));
        let adobe = self.adobe.iter().map(|adobe| (Vendor::Adobe, adobe.credentials.clone()));
        marketo.chain(adobe).collect()
    }
}

/// Waiting times are far below 2^52 ms, a scale is above 0, and `as` saturates: nothing is lost here.
pub(crate) fn scaled_ms(ms: u64, time_scale: f64) -> u64 {
    (ms as f64 * time_scale).ceil() as u64
}

/// Settings of Marketo.
#[derive(Debug, Clone)]
pub struct Marketo {
    /// Base of the REST API without a slash at its end; empty: by the Munchkin id.
    pub base_url: String,
    /// Where the credentials of the custom service are.
    pub credentials: Source,
    /// Our share of Marketo's quota.
    pub quota: Quota,
}

impl Marketo {
    fn load<F: Fn(&str) -> Option<String>>(env: &Env<F>) -> Result<Self, ConfigError> {
        let natural = |text: &str| text.parse().ok().filter(|calls| *calls > 0);
        Ok(Self {
            base_url: env.url(&MARKETO_BASE_URL)?,
            credentials: MARKETO.load(env)?,
            quota: Quota {
                share: env.parse(&QUOTA_SHARE, "a number above 0 and at most 1", |text| {
                    text.parse().ok().filter(|share: &f64| *share > 0.0 && *share <= 1.0)
                })?,
                calls_per_day: env.parse(&QUOTA_CALLS_PER_DAY, "a whole number above 0", natural)?,
            },
        })
    }
}

/// Marketo's quota, and our share of it over all functions together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Our share of each limit, above 0 and at most 1.
    pub share: f64,
    /// Calls in a day of US Central time, all tools together.
    pub calls_per_day: u32,
}

/// Settings of Adobe.
#[derive(Debug, Clone)]
pub struct Adobe {
    /// Base of the token endpoint, without a slash at its end.
    pub ims_url: String,
    /// Base of Audience Manager's REST API, without a slash at its end.
    pub aam_url: String,
    /// Base of Experience Platform's API, without a slash at its end.
    pub aep_url: String,
    /// Base of the API of its folders, without a slash at its end.
    pub aep_folders_url: String,
    /// Its sandbox; empty: Experience Platform is not used.
    pub aep_sandbox: String,
    /// Where the server-to-server credential is. Its client id is the `x-api-key`, too.
    pub credentials: Source,
    /// Scopes, separated by commas.
    pub scopes: String,
}

impl Adobe {
    fn load<F: Fn(&str) -> Option<String>>(env: &Env<F>) -> Result<Self, ConfigError> {
        Ok(Self {
            ims_url: env.url(&ADOBE_IMS_URL)?,
            aam_url: env.url(&ADOBE_AAM_URL)?,
            aep_url: env.url(&ADOBE_AEP_URL)?,
            aep_folders_url: env.url(&ADOBE_AEP_FOLDERS_URL)?,
            aep_sandbox: env.text(&ADOBE_AEP_SANDBOX)?,
            credentials: ADOBE.load(env)?,
            scopes: env.text(&ADOBE_SCOPES)?,
        })
    }
}

/// Whose tokens callers show, and what their claims mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The issuer, without a slash at its end.
    pub authority: String,
    /// What a token must name as its audience, or as its client.
    pub audience: String,
    /// The console's client id at the issuer.
    pub client_id: String,
    /// What the console asks for.
    pub scope: String,
    /// Origin of the token endpoint; empty: the issuer's.
    pub token_origin: String,
    /// The claim that says what a caller may do.
    pub claim: String,
    /// Its value of operators.
    pub operator: String,
    /// Its value of viewers.
    pub viewer: String,
}

impl Access {
    fn load<F: Fn(&str) -> Option<String>>(env: &Env<F>) -> Result<Option<Self>, ConfigError> {
        let tokens = env.parse(&AUTH, "jwt or none", |text| match text {
            "jwt" => Some(true),
            "none" => Some(false),
            _ => None,
        })?;
        if !tokens {
            return Ok(None);
        }
        let set = |variable: &Variable| {
            let text = env.text(variable)?;
            let missing = ConfigError { name: variable.name, expected: "a value, since AUTH is not none" };
            if text.is_empty() { Err(missing) } else { Ok(text) }
        };
        let audience = set(&AUTH_AUDIENCE)?;
        set(&AUTH_AUTHORITY)?;
        let client_id = Some(env.text(&AUTH_CLIENT_ID)?).filter(|id| !id.is_empty());
        Ok(Some(Self {
            authority: env.url(&AUTH_AUTHORITY)?,
            client_id: client_id.unwrap_or_else(|| audience.clone()),
            audience,
            scope: env.text(&AUTH_SCOPE)?,
            token_origin: env.url(&AUTH_TOKEN_ORIGIN)?,
            claim: env.text(&AUTH_CLAIM)?,
            operator: env.text(&AUTH_OPERATOR)?,
            viewer: env.text(&AUTH_VIEWER)?,
        }))
    }
}

/// A variable that is missing or malformed. Holds the name and what was expected, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The variable.
    pub name: &'static str,
    /// What it should be.
    pub expected: &'static str,
}

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "environment variable {}: expected {}", self.name, self.expected)
    }
}

impl std::error::Error for ConfigError {}

/// The variables that say where a vendor's credentials are.
struct CredentialVariables {
    arn: Variable,
    id: Variable,
    secret: Variable,
}

impl CredentialVariables {
    const fn all(&self) -> [Variable; 3] {
        [self.arn, self.id, self.secret]
    }

    /// Exactly one of the two ways must be taken.
    fn load<F: Fn(&str) -> Option<String>>(&self, env: &Env<F>) -> Result<Source, ConfigError> {
        let wrong = |variable: &Variable, expected| Err(ConfigError { name: variable.name, expected });
        let arn = env.text(&self.arn)?;
        let id = SecretString::from(env.text(&self.id)?);
        let secret = SecretString::from(env.text(&self.secret)?);
        let given = |text: &SecretString| !text.expose_secret().is_empty();
        match (!arn.is_empty(), given(&id), given(&secret)) {
            (true, false, false) => Ok(Source::SecretsManager(arn)),
            (false, true, true) => Ok(Source::Environment(Credentials { id, secret })),
            (false, false, false) => wrong(&self.arn, "the ARN of a secret, or client id and client secret beside it"),
            (true, _, _) => wrong(&self.arn, "nothing, since client id or client secret is set as well"),
            (false, true, false) => wrong(&self.secret, "a value, since the client id is set"),
            (false, false, true) => wrong(&self.id, "a value, since the client secret is set"),
        }
    }
}

/// At most one of the two ways may be taken.
fn streams<F: Fn(&str) -> Option<String>>(env: &Env<F>) -> Result<Source<StreamSecrets>, ConfigError> {
    let wrong = |variable: &Variable, expected| Err(ConfigError { name: variable.name, expected });
    let arn = env.text(&STREAM_SECRET_ARN)?;
    let secrets = SecretString::from(env.text(&STREAM_SECRETS)?);
    match (arn.is_empty(), secrets.expose_secret().is_empty()) {
        (false, true) => Ok(Source::SecretsManager(arn)),
        (true, true) => Ok(Source::Environment(StreamSecrets::default())),
        (true, false) => match StreamSecrets::parse(secrets.expose_secret()) {
            Ok(secrets) => Ok(Source::Environment(secrets)),
            Err(_) => {
                wrong(&STREAM_SECRETS, "a JSON object with `feeds`, each with lists of `keys`, `tokens`, `clients`")
            }
        },
        (false, false) => wrong(&STREAM_SECRET_ARN, "nothing, since the secrets of streams are set as well"),
    }
}

struct Env<F>(F);

impl<F: Fn(&str) -> Option<String>> Env<F> {
    fn text(&self, variable: &Variable) -> Result<String, ConfigError> {
        (self.0)(variable.name)
            .filter(|value| !value.is_empty())
            .or_else(|| variable.default.map(str::to_owned))
            .ok_or(ConfigError { name: variable.name, expected: "a value; it is not set" })
    }

    fn parse<T>(
        &self,
        variable: &Variable,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        parse(&self.text(variable)?).ok_or(ConfigError { name: variable.name, expected })
    }

    fn url(&self, variable: &Variable) -> Result<String, ConfigError> {
        self.parse(variable, "an http or https URL", |text| {
            let known = text.is_empty() || text.starts_with("https://") || text.starts_with("http://");
            known.then(|| text.trim_end_matches('/').to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: Uses = Uses {
        tables: &Table::ALL,
        queues: &Queue::ALL,
        bucket: true,
        matches: true,
        marketo: true,
        adobe: true,
        streams: true,
        access: true,
        alerts: true,
    };

    fn complete() -> BTreeMap<&'static str, String> {
        ALL.variables()
            .into_iter()
            .filter(|variable| variable.default.is_none())
            .map(|variable| variable.name)
            .chain(["MARKETO_CLIENT_ID", "MARKETO_CLIENT_SECRET", "ADOBE_CLIENT_ID", "ADOBE_CLIENT_SECRET"])
            .chain(["AUTH_AUDIENCE"])
            .map(|name| (name, "canary".to_owned()))
            .chain([("AUTH_AUTHORITY", "https://canary.example".to_owned())])
            .collect()
    }

    fn load(env: &BTreeMap<&str, String>) -> Result<Config, ConfigError> {
        ALL.load(|name| env.get(name).cloned())
    }

    #[test]
    fn defaults_are_the_documented_ones_and_secrets_do_not_show() {
        let config = load(&complete()).expect("complete");
        assert_eq!(config.time_scale, 1.0);
        assert_eq!(config.log_level, tracing::Level::INFO);
        let marketo = config.marketo.as_ref().expect("declared");
        assert_eq!(marketo.base_url, "");
        assert_eq!(marketo.quota, Quota { share: 0.5, calls_per_day: 50_000 });
        assert_eq!(marketo.credentials, Source::Environment(Credentials::new("canary", "canary")));
        let adobe = config.adobe.as_ref().expect("declared");
        assert_eq!(adobe.ims_url, "https://ims-na1.adobelogin.com");
        assert_eq!(adobe.scopes, "canary");
        assert!(!format!("{marketo:?} {:?} {:?}", adobe.credentials, config.secrets()).contains("canary"));
    }

    #[test]
    fn credentials_are_in_a_secret_or_in_the_environment_and_never_in_both() {
        const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:canary-AbCdEf";
        for names in [MARKETO, ADOBE] {
            let [arn, id, secret] = names.all().map(|variable| variable.name);
            let with = |arn_is: &str, id_is: &str, secret_is: &str| {
                let mut env = complete();
                for (name, value) in [(arn, arn_is), (id, id_is), (secret, secret_is)] {
                    env.insert(name, value.to_owned());
                }
                load(&env)
            };
            let secrets: Vec<Source> = with(ARN, "", "").expect("a secret").secrets().into_values().collect();
            assert!(secrets.contains(&Source::SecretsManager(ARN.to_owned())), "{arn}");
            assert_eq!(with("", "canary", "canary").expect("values").secrets().len(), 2);
            for (wrong, name) in [
                (with("", "", ""), arn),
                (with(ARN, "canary", "canary"), arn),
                (with(ARN, "canary", ""), arn),
                (with(ARN, "", "canary"), arn),
                (with("", "canary", ""), secret),
                (with("", "", "canary"), id),
            ] {
                let error = wrong.expect_err("not exactly one of both ways");
                assert_eq!(error.name, name);
                assert!(!error.to_string().contains("canary"), "{error}");
            }
        }
    }

    #[test]
    fn secrets_of_streams_are_in_a_secret_or_in_the_environment_and_never_in_both() {
        const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:canary-AbCdEf";
        const JSON: &str = r#"{"feeds": {"web": {"keys": ["canary"]}}}"#;
        let with = |arn: &str, secrets: &str| {
            let mut env = complete();
            env.insert(STREAM_SECRET_ARN.name, arn.to_owned());
            env.insert(STREAM_SECRETS.name, secrets.to_owned());
            load(&env).map(|config| config.streams.expect("declared"))
        };
        assert!(matches!(with(ARN, ""), Ok(Source::SecretsManager(arn)) if arn == ARN));
        for (secrets, keys) in [(JSON, Some(1)), ("", None)] {
            let Ok(Source::Environment(found)) = with("", secrets) else { panic!("in the environment") };
            assert!(!format!("{found:?}").contains("canary"));
            assert_eq!(found.of("123-ABC-456", "web").map(|feed| feed.keys.len()), keys);
        }
        for (arn, secrets, name) in [(ARN, JSON, "STREAM_SECRET_ARN"), ("", "canary", "STREAM_SECRETS")] {
            let error = with(arn, secrets).expect_err("wrong");
            assert_eq!(error.name, name);
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn tokens_are_asked_for_unless_the_environment_says_otherwise() {
        let access = load(&complete()).expect("complete").access.expect("by default");
        assert_eq!((access.audience.as_str(), access.client_id.as_str()), ("canary", "canary"));
        assert_eq!((access.claim.as_str(), access.operator.as_str()), ("cognito:groups", "operator"));
        for name in ["AUTH_AUTHORITY", "AUTH_AUDIENCE"] {
            let mut env = complete();
            env.remove(name);
            assert_eq!(load(&env).expect_err("missing").name, name);
            env.insert("AUTH", "none".to_owned());
            assert_eq!(load(&env).expect("nobody is asked").access, None);
        }
        let mut env = complete();
        env.insert("AUTH", "canary".to_owned());
        assert_eq!(load(&env).expect_err("neither").name, "AUTH");
        env.insert("AUTH", String::new());
        assert!(load(&env).expect("empty is the default").access.is_some());
    }

    #[test]
    fn every_required_variable_is_named_when_it_is_missing_or_empty() {
        for variable in ALL.variables().into_iter().filter(|variable| variable.default.is_none()) {
            let mut env = complete();
            env.insert(variable.name, String::new());
            assert_eq!(load(&env).expect_err("empty").name, variable.name);
            env.remove(variable.name);
            assert_eq!(load(&env).expect_err("missing").name, variable.name);
        }
    }

    #[test]
    fn malformed_values_are_refused_by_name_and_not_quoted() {
        for (name, value) in [
            ("TIME_SCALE", "canary"),
            ("TIME_SCALE", "0"),
            ("TIME_SCALE", "-1"),
            ("TIME_SCALE", "inf"),
            ("LOG_LEVEL", "canary"),
            ("MARKETO_BASE_URL", "canary"),
            ("ADOBE_IMS_URL", "ftp://canary"),
            ("QUOTA_SHARE", "1.5"),
            ("QUOTA_CALLS_PER_DAY", "canary"),
        ] {
            let mut env = complete();
            env.insert(name, value.to_owned());
            let error = load(&env).expect_err("malformed");
            assert_eq!(error.name, name);
            assert!(error.to_string().contains(name) && !error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn a_function_needs_only_what_it_declares() {
        let uses = Uses { tables: &[Table::Identity], ..Uses::NOTHING };
        let config = uses.load(|name| (name == "IDENTITY_TABLE").then(|| "t".to_owned())).expect("enough");
        assert!(config.marketo.is_none() && config.adobe.is_none());
        let rows: Vec<String> = uses.markdown().lines().map(str::to_owned).collect();
        assert_eq!(rows.len(), 5);
        assert_eq!(
            rows[2],
            "| `TIME_SCALE` | Factor on every waiting time; below 1 in tests and the local stack. | `1` |"
        );
        assert_eq!(
            rows[4],
            "| `IDENTITY_TABLE` | Table of tokens, leads and the hints that lead to them. | required |"
        );
    }

    #[test]
    fn waiting_times_scale_and_never_vanish() {
        let config = |time_scale| Config {
            time_scale,
            match_lifetime_days: 1,
            log_level: tracing::Level::INFO,
            marketo: None,
            adobe: None,
            streams: None,
            access: None,
        };
        assert_eq!(config(1.0).scaled_ms(1_500), 1_500);
        assert_eq!(config(0.1).scaled_ms(1_505), 151);
        assert_eq!(config(0.0001).scaled_ms(1), 1);
        assert_eq!(config(0.5).scaled_ms(0), 0);
    }
}
