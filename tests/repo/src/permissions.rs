//! What the template allows each function, and what the functions of a test run were seen to ask of AWS.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde_yaml_ng::Value;

/// Statements that no function is seen to need, and why. Of all others, whatever is allowed must have been used.
pub const EXCEPT: [(&str, &str); 9] = [
    ("Log", "Lambda writes the log with the function's role"),
    ("Poll", "Lambda's poller asks with the function's role; the local stack's asks as itself"),
    ("KeepFailedTicks", "Lambda sends with the function's role what it was handed and could not run"),
    ("NetworkInterfaces", "Lambda makes network interfaces with the function's role, and only in a VPC"),
    ("RetrySoon", "a function asks for an earlier return of its message only when that has failed"),
    ("TellMissing", "nothing is listed: S3 tells whoever may list that an object is missing, and nobody else"),
    ("MarketoSecret", "the local stack has no Secrets Manager"),
    ("AdobeSecret", "the local stack has no Secrets Manager"),
    ("StreamSecret", "the local stack has no Secrets Manager"),
];
/// Actions that take no resource but `*`, by statement.
pub const EVERYTHING: [(&str, &str); 1] =
    [("NetworkInterfaces", "the interfaces do not exist yet, and Describe takes no resource")];

/// A table that is not there: functions that the tests deploy wrongly ask for it (`tests/e2e/tests/runbook.rs`).
const NO_TABLE: &str = "local-NoSuchTable";

/// The function of the local stack's own tests, which have a template of their own (`infra/local/stack/tests`).
const OTHERS: &str = "worker";

/// One action of one function on one resource, by the name that it bears on the local stack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Permission {
    /// The function's binary.
    pub function: String,
    /// The action, as IAM names it.
    pub action: String,
    /// The resource.
    pub resource: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.function, self.action, self.resource)
    }
}

/// A permission, and the statement that gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// The permission.
    pub permission: Permission,
    /// The statement's `Sid`.
    pub statement: String,
}

/// What a template allows its functions, with every optional part of it.
///
/// # Errors
/// When a part of the template has another form than ours.
pub fn allowed(template: &str) -> Result<Vec<Allowed>, String> {
    let yaml: Value = serde_yaml_ng::from_str(template).map_err(|error| format!("not YAML: {error}"))?;
    let resources = &yaml["Resources"];
    let mut found = Vec::new();
    for (name, function) in resources.as_mapping().into_iter().flatten() {
        if function["Type"] != "AWS::Serverless::Function" {
            continue;
        }
        let binary = function["Metadata"]["BuildProperties"]["Binary"].as_str().ok_or("a function without a binary")?;
        let role = tagged(&function["Properties"]["Role"], "GetAtt").and_then(|role| role.strip_suffix(".Arn"));
        let role = role.ok_or_else(|| format!("{name:?}: Role must be !GetAtt Name.Arn"))?;
        for policy in sequence(&resources[role]["Properties"]["Policies"]) {
            for statement in sequence(&policy["PolicyDocument"]["Statement"]) {
                let statement = branch(statement, "NoValue", 1);
                let sid = statement["Sid"].as_str().ok_or_else(|| format!("{role}: a statement without a Sid"))?;
                let in_statement = |error: String| format!("{role}, {sid}: {error}");
                if statement["Effect"] != "Allow" || !statement["Condition"].is_null() {
                    return Err(in_statement("must allow, without a condition".to_owned()));
                }
                for action in sequence(&statement["Action"]) {
                    for resource in sequence(&statement["Resource"]) {
                        let action =
                            action.as_str().ok_or_else(|| in_statement("an action must be a text".to_owned()))?;
                        let resource = name_of(resource, resources).map_err(in_statement)?;
                        let permission =
                            Permission { function: binary.to_owned(), action: action.to_owned(), resource };
                        found.push(Allowed { permission, statement: sid.to_owned() });
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What was called, of all the files that the stacks of a test run have left in a folder.
///
/// # Errors
/// When the folder or a file cannot be read, or a line has another form.
pub fn called(folder: &Path) -> std::io::Result<BTreeSet<Permission>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let file = entry?.path().join("calls.log");
        if !file.is_file() {
            continue;
        }
        for line in std::fs::read_to_string(&file)?.lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let (Some(function), Some(action), Some(resource)) = (words.next(), words.next(), words.next()) else {
                return Err(std::io::Error::other(format!("{}: a line is not a call", file.display())));
            };
            if resource != NO_TABLE && function != OTHERS {
                found.insert(Permission { function, action, resource });
            }
        }
    }
    Ok(found)
}

/// Where the two differ: a line each.
#[must_use]
pub fn differences(allowed: &[Allowed], called: &BTreeSet<Permission>) -> Vec<String> {
    let given: BTreeSet<&Permission> = allowed.iter().map(|allowed| &allowed.permission).collect();
    let excepted = |allowed: &&Allowed| EXCEPT.iter().any(|(statement, _)| *statement == allowed.statement);
    let idle = allowed.iter().filter(|allowed| !excepted(allowed) && !called.contains(&allowed.permission));
    let idle = idle.map(|allowed| format!("allowed by {}, and never used: {}", allowed.statement, allowed.permission));
    let forbidden = called.iter().filter(|permission| !given.contains(permission));
    forbidden.map(|permission| format!("used, and not allowed: {permission}")).chain(idle).collect()
}

/// Of an `!If`, the branch that counts: the one that is not `AWS::NoValue`, or else the one at `otherwise`.
fn branch<'a>(value: &'a Value, without: &str, otherwise: usize) -> &'a Value {
    let Value::Tagged(tag) = value else { return value };
    if tag.tag != "If" {
        return value;
    }
    let is_without = |value: &Value| tagged(value, "Ref").is_some_and(|name| name.ends_with(without));
    if is_without(&tag.value[1]) { &tag.value[2] } else { &tag.value[otherwise] }
}

/// The name that a resource bears on the local stack. Of restored tables and the stack's own, the latter.
fn name_of(value: &Value, resources: &Value) -> Result<String, String> {
    let value = branch(value, "NoValue", 2);
    if let Some(name) = tagged(value, "GetAtt").and_then(|name| name.strip_suffix(".Arn")) {
        return physical(name, resources);
    }
    if let Some(text) = tagged(value, "Sub") {
        if text.contains(":event-bus/") {
            return Ok("event-bus".to_owned());
        }
        let inner = text.strip_prefix("${").and_then(|text| text.split_once(".Arn}"));
        let (name, rest) = inner.ok_or_else(|| format!("{text} is not ${{Name.Arn}} and a rest"))?;
        return Ok(physical(name, resources)? + rest);
    }
    let name = tagged(value, "Ref").or_else(|| value.as_str());
    name.map(str::to_owned).ok_or_else(|| format!("{value:?} names no resource"))
}

fn physical(logical: &str, resources: &Value) -> Result<String, String> {
    let resource = &resources[logical];
    Ok(match resource["Type"].as_str() {
        Some("AWS::S3::Bucket") => format!("local-{logical}").to_lowercase(),
        Some("AWS::SQS::Queue") => {
            let name = tagged(&resource["Properties"]["QueueName"], "Sub");
            name.ok_or_else(|| format!("{logical} has no name"))?.replace("${AWS::StackName}", "local")
        }
        Some(_) => format!("local-{logical}"),
        None => return Err(format!("there is no resource {logical}")),
    })
}

fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a str> {
    match value {
        Value::Tagged(tagged) if tagged.tag == tag => tagged.value.as_str(),
        _ => None,
    }
}

fn sequence(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_sequence().into_iter().flatten()
}
