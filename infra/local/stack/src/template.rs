//! Reads the subset of SAM and CloudFormation that our template uses.
//!
//! Anything outside the subset is an error that names the resource, never a silent difference from AWS. Values are
//! resolved only where they are read, so that parts which only AWS needs (policies, log groups) may use more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use serde_json::{Map, Value, json};

use crate::gateway::LOG_VARIABLES;
use crate::{ACCOUNT, REGION, STACK_NAME};

/// Resource types that have no meaning here and are skipped.
const IGNORED_TYPES: [&str; 17] = [
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::ApiMapping",
    "AWS::ApiGatewayV2::Authorizer",
    "AWS::ApiGatewayV2::DomainName",
    "AWS::Budgets::Budget",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::Cognito::UserPool",
    "AWS::Cognito::UserPoolClient",
    "AWS::Cognito::UserPoolDomain",
    "AWS::Cognito::UserPoolGroup",
    "AWS::IAM::Role",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::S3::BucketPolicy",
    "AWS::SQS::QueuePolicy",
];

/// Lambda's default time-out in seconds.
const DEFAULT_TIMEOUT_S: u64 = 3;
/// Lambda's default memory in MB.
const DEFAULT_MEMORY_MB: u64 = 128;
/// SQS's default visibility time-out in seconds.
const DEFAULT_VISIBILITY_S: u64 = 30;

/// What the template declares, with every reference resolved.
#[derive(Debug, Clone)]
pub struct Template {
    /// `TimeScale`: factor on time-outs and rates.
    pub time_scale: f64,
    /// `EventBus`: the account's bus that hears of what happens; `None`: none does.
    pub event_bus: Option<String>,
    /// Tables.
    pub tables: Vec<Table>,
    /// Queues; a dead-letter queue stands before the queues that use it.
    pub queues: Vec<Queue>,
    /// Buckets.
    pub buckets: Vec<Bucket>,
    /// Functions.
    pub functions: Vec<Function>,
    /// The HTTP API.
    pub api: Api,
}

/// What the HTTP API says beside its routes, which stand at the functions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Api {
    /// Throttles by route, such as `POST /matches`. The local stack throttles nobody.
    pub throttles: BTreeMap<String, Throttle>,
    /// A line of the access log: names, and the variables of API Gateway (`$context.status`) whose values they get.
    /// Empty: no access log.
    pub access_log: BTreeMap<String, String>,
}

/// A throttle of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Throttle {
    /// Requests a second.
    pub rate: f64,
    /// Requests at once.
    pub burst: u64,
}

/// A DynamoDB table.
#[derive(Debug, Clone)]
pub struct Table {
    /// Physical name.
    pub name: String,
    /// Body of a CreateTable request.
    pub create: Value,
    /// Time-to-live attribute.
    pub ttl: Option<String>,
}

/// An SQS queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Physical name.
    pub name: String,
    /// FIFO queue.
    pub fifo: bool,
    /// Declared visibility time-out in seconds, unscaled.
    pub visibility_s: u64,
    /// Further attributes of CreateQueue.
    pub attributes: BTreeMap<String, String>,
    /// Dead-letter queue and the number of receives before it.
    pub redrive: Option<(String, u64)>,
    /// Some queue or schedule uses this one for its dead letters.
    pub dead: bool,
}

/// An S3 bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Physical name.
    pub name: String,
    /// Queues to tell of new objects.
    pub notifications: Vec<Notification>,
}

/// A bucket's notification to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    /// Queue's physical name.
    pub queue: String,
    /// Only keys that begin so.
    pub prefix: String,
    /// Only keys that end so.
    pub suffix: String,
}

/// A Lambda function.
#[derive(Debug, Clone)]
pub struct Function {
    /// `FunctionName`, else the binary's name.
    pub name: String,
    /// Name of the binary (`Metadata.BuildProperties.Binary`).
    pub binary: String,
    /// Declared time-out in seconds, unscaled.
    pub timeout_s: u64,
    /// Memory in MB.
    pub memory_mb: u64,
    /// Most processes at a time.
    pub reserved: Option<usize>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Event source mappings.
    pub sources: Vec<EventSource>,
    /// HTTP routes.
    pub routes: Vec<Route>,
    /// Schedules.
    pub schedules: Vec<Schedule>,
}

/// An SQS event source mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSource {
    /// Queue's physical name.
    pub queue: String,
    /// Most messages a batch.
    pub batch_size: usize,
    /// Seconds to gather a batch.
    pub window_s: u64,
    /// The function's response names the failed messages.
    pub report_item_failures: bool,
    /// Most batches at a time (standard queues).
    pub maximum_concurrency: Option<usize>,
}

/// An HTTP API route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Method in capitals, or `ANY`.
    pub method: String,
    /// Path with `{name}` and `{name+}` parts.
    pub path: String,
    /// Anybody may call it: the API's authorizer does not stand before it.
    pub public: bool,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Name of the event in the template.
    pub name: String,
    /// Seconds between two ticks, unscaled.
    pub every_s: u64,
    /// Constant event, instead of the usual one.
    pub input: Option<Value>,
    /// A scheduler's schedule (`ScheduleV2`), else an EventBridge rule.
    pub scheduler: bool,
    /// Queue of the ticks that could not be delivered. Here none fails to be, and nothing comes there.
    pub dead_letters: Option<String>,
}

/// Reads the template at `path`; `sqs_endpoint` is the address in queue URLs (no slash at the end).
pub fn read(path: &Path, parameters: &BTreeMap<String, String>, sqs_endpoint: &str) -> anyhow::Result<Template> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text, parameters, sqs_endpoint).with_context(|| format!("template {}", path.display()))
}

/// Reads a template's text.
pub fn parse(text: &str, parameters: &BTreeMap<String, String>, sqs_endpoint: &str) -> anyhow::Result<Template> {
    let yaml: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).context("not YAML")?;
    let root = to_json(yaml)?;
    let reader = Reader::new(&root, parameters, sqs_endpoint)?;
    reader.template()
}

/// YAML to JSON, with CloudFormation's short tags in their long form.
fn to_json(value: serde_yaml_ng::Value) -> anyhow::Result<Value> {
    use serde_yaml_ng::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::Number(number) => serde_json::to_value(number)?,
        Yaml::String(text) => Value::String(text),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = match key {
                    Yaml::String(text) => text,
                    Yaml::Number(number) => number.to_string(),
                    Yaml::Bool(flag) => flag.to_string(),
                    other => bail!("a key must be text, not {other:?}"),
                };
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            let tag = tagged.tag.to_string();
            let name = tag.trim_start_matches('!');
            let long = match name {
                "Ref" | "Condition" => name.to_owned(),
                _ => format!("Fn::{name}"),
            };
            json!({ long: to_json(tagged.value)? })
        }
    })
}

struct Reader<'a> {
    parameters: BTreeMap<String, String>,
    conditions: &'a Map<String, Value>,
    resources: &'a Map<String, Value>,
    globals: &'a Map<String, Value>,
    sqs_endpoint: &'a str,
}

impl<'a> Reader<'a> {
    fn new(root: &'a Value, given: &BTreeMap<String, String>, sqs_endpoint: &'a str) -> anyhow::Result<Self> {
        let empty = empty();
        let declared = object_at(root, "Parameters").unwrap_or(empty);
        let mut parameters = BTreeMap::new();
        for (name, declaration) in declared {
            let value = given.get(name).cloned().or_else(|| declaration.get("Default").map(text_of));
            let Some(value) = value else { continue };
            if let Some(allowed) = declaration.get("AllowedValues").and_then(Value::as_array) {
                ensure!(
                    allowed.iter().any(|one| text_of(one) == value),
                    "parameter {name} must be one of its AllowedValues"
                );
            }
            if declaration.get("Type").and_then(Value::as_str) == Some("Number") {
                ensure!(value.parse::<f64>().is_ok(), "parameter {name} must be a number");
            }
            parameters.insert(name.clone(), value);
        }
        if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
            bail!("the template has no parameter {unknown}");
        }
        Ok(Self {
            parameters,
            conditions: object_at(root, "Conditions").unwrap_or(empty),
            resources: object_at(root, "Resources").context("no Resources")?,
            globals: root.get("Globals").and_then(|globals| object_at(globals, "Function")).unwrap_or(empty),
            sqs_endpoint,
        })
    }

    fn template(&self) -> anyhow::Result<Template> {
        let time_scale = match self.parameters.get("TimeScale") {
            None => 1.0,
            Some(text) => text
                .parse::<f64>()
                .ok()
                .filter(|scale| *scale > 0.0 && scale.is_finite())
                .with_context(|| "parameter TimeScale must be a positive number")?,
        };
        let mut template = Template {
            time_scale,
            event_bus: self.parameters.get("EventBus").filter(|name| !name.is_empty()).cloned(),
            tables: vec![],
            queues: vec![],
            buckets: vec![],
            functions: vec![],
            api: Api::default(),
        };
        // Logical names of the functions, in their order, and the routes, which name a function by an integration.
        let mut names: Vec<&str> = vec![];
        let mut routes = vec![];
        for (logical, resource) in self.resources {
            let in_resource = || format!("resource {logical}");
            if let Some(condition) = resource.get("Condition").and_then(Value::as_str)
                && !self.condition(condition).with_context(in_resource)?
            {
                continue;
            }
            let kind = resource.get("Type").and_then(Value::as_str).with_context(in_resource)?;
            let properties = object_at(resource, "Properties").unwrap_or(empty());
            match kind {
                "AWS::DynamoDB::Table" => {
                    template.tables.push(self.table(logical, properties).with_context(in_resource)?);
                }
                "AWS::SQS::Queue" => {
                    template.queues.push(self.queue(logical, properties).with_context(in_resource)?);
                }
                "AWS::S3::Bucket" => {
                    template.buckets.push(self.bucket(logical, properties).with_context(in_resource)?);
                }
                "AWS::Serverless::Function" => {
                    template.functions.push(self.function(resource, properties).with_context(in_resource)?);
                    names.push(logical);
                }
                "AWS::ApiGatewayV2::Stage" => template.api = self.api(properties).with_context(in_resource)?,
                "AWS::ApiGatewayV2::Route" => routes.push(self.route(properties).with_context(in_resource)?),
                // Read where a route names it.
                "AWS::ApiGatewayV2::Integration" => {}
                _ if IGNORED_TYPES.contains(&kind) => {}
                _ => bail!("resource {logical}: the local stack does not know the type {kind}"),
            }
        }
        for (function, route) in routes {
            let index = names.iter().position(|name| *name == function);
            let index = index.with_context(|| format!("{}: there is no function {function}", route.path))?;
            template.functions[index].routes.push(route);
        }
        check(&mut template)?;
        Ok(template)
    }

    fn api(&self, properties: &Map<String, Value>) -> anyhow::Result<Api> {
        let mut api = Api::default();
        for (route, settings) in object_at_key(properties, "RouteSettings").unwrap_or(empty()) {
            let in_route = || format!("RouteSettings of {route}");
            let (rate, burst) = (settings.get("ThrottlingRateLimit"), settings.get("ThrottlingBurstLimit"));
            let (Some(rate), Some(burst)) = (rate, burst) else { continue };
            let rate = self.text(rate).with_context(in_route)?.parse().with_context(in_route)?;
            let burst = self.number(burst).with_context(in_route)?;
            api.throttles.insert(route.clone(), Throttle { rate, burst });
        }
        if let Some(format) = properties.get("AccessLogSettings").and_then(|settings| settings.get("Format")) {
            let format = self.text(format).context("AccessLogSettings.Format")?;
            api.access_log = serde_json::from_str(&format).context("AccessLogSettings.Format must be JSON of texts")?;
            let unknown = api.access_log.values().find(|variable| !LOG_VARIABLES.contains(&variable.as_str()));
            ensure!(unknown.is_none(), "the local stack does not log {}", unknown.map_or("", String::as_str));
        }
        Ok(api)
    }

    /// A route, and the logical name of the function behind it.
    fn route(&self, properties: &Map<String, Value>) -> anyhow::Result<(&'a str, Route)> {
        let key = self.text(properties.get("RouteKey").context("RouteKey")?)?;
        let (method, path) = key.split_once(' ').context("RouteKey must be a method and a path")?;
        let public = match properties.get("AuthorizationType").map(|kind| self.text(kind)).transpose()?.as_deref() {
            None | Some("NONE") => true,
            Some("JWT") => false,
            Some(other) => bail!("the local stack does not know the AuthorizationType {other}"),
        };
        let target = properties.get("Target").and_then(|target| target.get("Fn::Sub")).and_then(Value::as_str);
        let integration = target.and_then(|target| target.strip_prefix("integrations/${")?.strip_suffix('}'));
        let integration = integration.context("Target must be !Sub \"integrations/${Name}\"")?;
        let resource =
            self.resources.get(integration).with_context(|| format!("there is no resource {integration}"))?;
        let of_it = |name: &str| resource.get("Properties").and_then(|properties| properties.get(name));
        for (name, known) in [("IntegrationType", "AWS_PROXY"), ("PayloadFormatVersion", "2.0")] {
            let is_known = of_it(name).map(text_of).as_deref() == Some(known);
            ensure!(is_known, "{integration}: the local stack knows the {name} {known} only");
        }
        let function = of_it("IntegrationUri").and_then(|uri| uri.get("Fn::GetAtt")).and_then(Value::as_str);
        let function = function.and_then(|function| function.strip_suffix(".Arn"));
        let function = function.with_context(|| format!("{integration}: IntegrationUri must be !GetAtt Name.Arn"))?;
        Ok((function, Route { method: method.to_uppercase(), path: path.to_owned(), public }))
    }

    fn table(&self, logical: &str, properties: &Map<String, Value>) -> anyhow::Result<Table> {
        let name = self.physical(logical)?;
        let mut create = Map::new();
        create.insert("TableName".into(), json!(name));
        for key in
            ["KeySchema", "AttributeDefinitions", "GlobalSecondaryIndexes", "LocalSecondaryIndexes", "BillingMode"]
        {
            if let Some(value) = properties.get(key) {
                create.insert(key.into(), self.resolve(value).with_context(|| key.to_owned())?);
            }
        }
        ensure!(create.contains_key("KeySchema"), "KeySchema is missing");
        ensure!(create.get("BillingMode") == Some(&json!("PAY_PER_REQUEST")), "BillingMode must be PAY_PER_REQUEST");
        let ttl = properties.get("TimeToLiveSpecification").and_then(|ttl| ttl.get("AttributeName"));
        let ttl = ttl.map(|name| self.text(name)).transpose()?;
        Ok(Table { name, create: Value::Object(create), ttl })
    }

    fn queue(&self, logical: &str, properties: &Map<String, Value>) -> anyhow::Result<Queue> {
        let name = self.physical(logical)?;
        let mut attributes = BTreeMap::new();
        let mut redrive = None;
        let mut visibility_s = DEFAULT_VISIBILITY_S;
        for (key, value) in properties {
            match key.as_str() {
                "QueueName" | "FifoQueue" | "SqsManagedSseEnabled" | "Tags" => {}
                "VisibilityTimeout" => visibility_s = self.number(value).context("VisibilityTimeout")?,
                "RedrivePolicy" => {
                    let policy = self.resolve(value).context("RedrivePolicy")?;
                    let arn = policy.get("deadLetterTargetArn").map(text_of).context("deadLetterTargetArn")?;
                    let most = policy.get("maxReceiveCount").map(text_of).context("maxReceiveCount")?;
                    redrive = Some((name_of_arn(&arn)?, most.parse().context("maxReceiveCount")?));
                }
                "MessageRetentionPeriod"
                | "DelaySeconds"
                | "MaximumMessageSize"
                | "ContentBasedDeduplication"
                | "DeduplicationScope"
                | "FifoThroughputLimit"
                | "ReceiveMessageWaitTimeSeconds" => {
                    attributes.insert(key.clone(), self.text(value).with_context(|| key.clone())?);
                }
                other => bail!("the local stack does not know the queue property {other}"),
            }
        }
        let fifo = self.is_fifo(properties)?;
        ensure!(fifo == name.ends_with(".fifo"), "FifoQueue and the ending .fifo of the name {name} do not agree");
        Ok(Queue { name, fifo, visibility_s, attributes, redrive, dead: false })
    }

    fn bucket(&self, logical: &str, properties: &Map<String, Value>) -> anyhow::Result<Bucket> {
        let name = self.physical(logical)?;
        ensure!(name.len() >= 3, "the bucket name {name} needs at least three characters");
        let mut notifications = vec![];
        if let Some(configuration) = properties.get("NotificationConfiguration") {
            let configuration = self.resolve(configuration).context("NotificationConfiguration")?;
            for (key, list) in configuration.as_object().context("NotificationConfiguration must be an object")? {
                ensure!(key == "QueueConfigurations", "the local stack notifies queues only, not {key}");
                for one in list.as_array().context("QueueConfigurations must be a list")? {
                    let event = one.get("Event").and_then(Value::as_str).unwrap_or_default();
                    ensure!(
                        event == "s3:ObjectCreated:*",
                        "the local stack knows s3:ObjectCreated:* only, not {event}"
                    );
                    let mut notification = Notification {
                        queue: name_of_arn(&one.get("Queue").map(text_of).context("Queue")?)?,
                        prefix: String::new(),
                        suffix: String::new(),
                    };
                    let rules = one.pointer("/Filter/S3Key/Rules").and_then(Value::as_array);
                    for rule in rules.into_iter().flatten() {
                        let value = rule.get("Value").map(text_of).unwrap_or_default();
                        match rule.get("Name").and_then(Value::as_str) {
                            Some("prefix") => notification.prefix = value,
                            Some("suffix") => notification.suffix = value,
                            other => bail!("a filter rule must be prefix or suffix, not {other:?}"),
                        }
                    }
                    notifications.push(notification);
                }
            }
        }
        Ok(Bucket { name, notifications })
    }

    fn function(&self, resource: &Value, properties: &Map<String, Value>) -> anyhow::Result<Function> {
        let binary = resource
            .pointer("/Metadata/BuildProperties/Binary")
            .and_then(Value::as_str)
            .context("Metadata.BuildProperties.Binary is missing: it names the function's binary")?
            .to_owned();
        let name = match properties.get("FunctionName") {
            Some(name) => self.text(name).context("FunctionName")?,
            None => binary.clone(),
        };
        let setting = |key: &str| properties.get(key).or_else(|| self.globals.get(key));
        let timeout_s = setting("Timeout").map_or(Ok(DEFAULT_TIMEOUT_S), |v| self.number(v)).context("Timeout")?;
        let memory_mb =
            setting("MemorySize").map_or(Ok(DEFAULT_MEMORY_MB), |v| self.number(v)).context("MemorySize")?;
        let reserved = setting("ReservedConcurrentExecutions").map(|v| self.number(v)).transpose()?;
        let mut environment = BTreeMap::new();
        for variables in [self.globals.get("Environment"), properties.get("Environment")].into_iter().flatten() {
            for (key, value) in object_at(variables, "Variables").context("Environment.Variables")? {
                environment.insert(key.clone(), self.text(value).with_context(|| format!("environment {key}"))?);
            }
        }
        let mut function = Function {
            name,
            binary,
            timeout_s,
            memory_mb,
            reserved: reserved.and_then(|n| usize::try_from(n).ok()),
            environment,
            sources: vec![],
            routes: vec![],
            schedules: vec![],
        };
        let events = properties.get("Events").and_then(Value::as_object);
        for (event, declaration) in events.into_iter().flatten() {
            self.event(&mut function, event, declaration).with_context(|| format!("event {event}"))?;
        }
        Ok(function)
    }

    fn event(&self, function: &mut Function, event: &str, declaration: &Value) -> anyhow::Result<()> {
        let properties = object_at(declaration, "Properties").context("Properties are missing")?;
        let kind = declaration.get("Type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "SQS" => function.sources.push(self.source(properties)?),
            "Schedule" | "ScheduleV2" => {
                let scheduler = kind == "ScheduleV2";
                let key = if scheduler { "ScheduleExpression" } else { "Schedule" };
                let expression = self.text(properties.get(key).with_context(|| key.to_owned())?)?;
                let input = match properties.get("Input") {
                    Some(input) => Some(serde_json::from_str(&self.text(input)?).context("Input must be JSON text")?),
                    None => None,
                };
                let state = properties.get("State").map(|state| self.text(state)).transpose()?;
                if state.as_deref() != Some("DISABLED") {
                    let every_s = rate_s(&expression)?;
                    let dead_letters = match properties.get("DeadLetterConfig") {
                        Some(config) => {
                            let arn = config.get("Arn").context("DeadLetterConfig.Arn")?;
                            Some(name_of_arn(&self.text(arn)?)?)
                        }
                        None => None,
                    };
                    let name = event.to_owned();
                    function.schedules.push(Schedule { name, every_s, input, scheduler, dead_letters });
                }
            }
            other => bail!("the local stack does not know events of type {other:?}"),
        }
        Ok(())
    }

    fn source(&self, properties: &Map<String, Value>) -> anyhow::Result<EventSource> {
        let mut source = EventSource {
            queue: String::new(),
            batch_size: 10,
            window_s: 0,
            report_item_failures: false,
            maximum_concurrency: None,
        };
        for (key, value) in properties {
            match key.as_str() {
                "Queue" => source.queue = name_of_arn(&self.text(value)?)?,
                "BatchSize" => source.batch_size = usize::try_from(self.number(value)?)?,
                "MaximumBatchingWindowInSeconds" => source.window_s = self.number(value)?,
                "FunctionResponseTypes" => {
                    let types = self.resolve(value)?;
                    ensure!(types == json!(["ReportBatchItemFailures"]), "unknown FunctionResponseTypes {types}");
                    source.report_item_failures = true;
                }
                "ScalingConfig" => {
                    let most = value.get("MaximumConcurrency").context("ScalingConfig.MaximumConcurrency")?;
                    source.maximum_concurrency = Some(usize::try_from(self.number(most)?)?);
                }
                "Enabled" => ensure!(self.text(value)? == "true", "a disabled event source is not supported"),
                other => bail!("the local stack does not know the property {other}"),
            }
        }
        ensure!(!source.queue.is_empty(), "Queue is missing");
        Ok(source)
    }

    /// The name that a resource bears here.
    fn physical(&self, logical: &str) -> anyhow::Result<String> {
        let resource = self.resources.get(logical).with_context(|| format!("there is no resource {logical}"))?;
        let properties = object_at(resource, "Properties").unwrap_or(empty());
        let kind = resource.get("Type").and_then(Value::as_str).unwrap_or_default();
        let key = match kind {
            "AWS::DynamoDB::Table" => "TableName",
            "AWS::SQS::Queue" => "QueueName",
            "AWS::S3::Bucket" => "BucketName",
            _ => bail!("the local stack cannot refer to {logical} of type {kind}"),
        };
        if let Some(name) = properties.get(key) {
            return self.text(name);
        }
        // CloudFormation makes a name out of the stack's and the logical one; bucket names must be small letters.
        let made = format!("{STACK_NAME}-{logical}");
        Ok(match kind {
            "AWS::S3::Bucket" => made.to_lowercase(),
            "AWS::SQS::Queue" if self.is_fifo(properties)? => format!("{made}.fifo"),
            _ => made,
        })
    }

    fn is_fifo(&self, properties: &Map<String, Value>) -> anyhow::Result<bool> {
        Ok(match properties.get("FifoQueue") {
            Some(flag) => self.text(flag)? == "true",
            None => false,
        })
    }

    fn reference(&self, name: &str) -> anyhow::Result<Value> {
        if let Some(value) = self.parameters.get(name) {
            return Ok(json!(value));
        }
        if let Some(value) = pseudo(name) {
            return Ok(value);
        }
        ensure!(
            self.resources.contains_key(name),
            "nothing is called {name} (or it is a parameter without default that was not given)"
        );
        let physical = self.physical(name)?;
        Ok(match self.kind(name) {
            "AWS::SQS::Queue" => json!(format!("{}/{ACCOUNT}/{physical}", self.sqs_endpoint)),
            _ => json!(physical),
        })
    }

    fn kind(&self, logical: &str) -> &str {
        self.resources.get(logical).and_then(|one| one.get("Type")).and_then(Value::as_str).unwrap_or_default()
    }

    fn attribute(&self, name: &str, attribute: &str) -> anyhow::Result<Value> {
        let physical = self.physical(name)?;
        Ok(json!(match (self.kind(name), attribute) {
            ("AWS::SQS::Queue", "Arn") => format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{physical}"),
            ("AWS::SQS::Queue", "QueueName") => physical,
            ("AWS::SQS::Queue", "QueueUrl") => format!("{}/{ACCOUNT}/{physical}", self.sqs_endpoint),
            ("AWS::S3::Bucket", "Arn") => format!("arn:aws:s3:::{physical}"),
            ("AWS::DynamoDB::Table", "Arn") => format!("arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{physical}"),
            (kind, _) => bail!("the local stack does not know the attribute {attribute} of {name} ({kind})"),
        }))
    }

    fn condition(&self, name: &str) -> anyhow::Result<bool> {
        let value = self.conditions.get(name).with_context(|| format!("there is no condition {name}"))?;
        self.truth(value).with_context(|| format!("condition {name}"))
    }

    fn truth(&self, value: &Value) -> anyhow::Result<bool> {
        let (key, argument) = single(value).context("a condition must be one function")?;
        let list = || argument.as_array().with_context(|| format!("{key} needs a list"));
        Ok(match key {
            "Condition" => self.condition(argument.as_str().context("Condition needs a name")?)?,
            "Fn::Equals" => match list()?.as_slice() {
                [one, two] => self.text(one)? == self.text(two)?,
                _ => bail!("Fn::Equals needs two values"),
            },
            "Fn::Not" => !self.truth(list()?.first().context("Fn::Not needs a condition")?)?,
            "Fn::And" => list()?.iter().map(|one| self.truth(one)).collect::<Result<Vec<_>, _>>()?.iter().all(|t| *t),
            "Fn::Or" => list()?.iter().map(|one| self.truth(one)).collect::<Result<Vec<_>, _>>()?.iter().any(|t| *t),
            other => bail!("the local stack does not know {other} in a condition"),
        })
    }

    /// The value with every function applied; `AWS::NoValue` becomes null and leaves its place.
    fn resolve(&self, value: &Value) -> anyhow::Result<Value> {
        if let Some((key, argument)) = single(value) {
            match key {
                "Ref" => return self.reference(argument.as_str().context("Ref needs a name")?),
                "Fn::GetAtt" => {
                    let (name, attribute) = match argument {
                        Value::String(text) => text.split_once('.').context("Fn::GetAtt needs name.attribute")?,
                        Value::Array(parts) => match parts.as_slice() {
                            [Value::String(name), Value::String(attribute)] => (name.as_str(), attribute.as_str()),
                            _ => bail!("Fn::GetAtt needs a name and an attribute"),
                        },
                        _ => bail!("Fn::GetAtt needs name.attribute"),
                    };
                    return self.attribute(name, attribute);
                }
                "Fn::Sub" => return self.substitute(argument).map(Value::String),
                "Fn::If" => {
                    let Some([Value::String(condition), yes, no]) = argument.as_array().map(Vec::as_slice) else {
                        bail!("Fn::If needs a condition and two values");
                    };
                    return self.resolve(if self.condition(condition)? { yes } else { no });
                }
                "Fn::Join" => {
                    let Some([Value::String(separator), Value::Array(parts)]) = argument.as_array().map(Vec::as_slice)
                    else {
                        bail!("Fn::Join needs a separator and a list");
                    };
                    let parts = parts.iter().map(|part| self.text(part)).collect::<anyhow::Result<Vec<_>>>()?;
                    return Ok(json!(parts.join(separator)));
                }
                _ if key.starts_with("Fn::") => bail!("the local stack does not know {key}"),
                _ => {}
            }
        }
        Ok(match value {
            Value::Array(items) => {
                let items = items.iter().map(|item| self.resolve(item)).collect::<anyhow::Result<Vec<_>>>()?;
                Value::Array(items.into_iter().filter(|item| !item.is_null()).collect())
            }
            Value::Object(entries) => {
                let mut object = Map::new();
                for (key, value) in entries {
                    let value = self.resolve(value).with_context(|| key.clone())?;
                    if !value.is_null() {
                        object.insert(key.clone(), value);
                    }
                }
                Value::Object(object)
            }
            other => other.clone(),
        })
    }

    fn substitute(&self, argument: &Value) -> anyhow::Result<String> {
        let empty = empty();
        let (text, own) = match argument {
            Value::String(text) => (text, empty),
            Value::Array(parts) => match parts.as_slice() {
                [Value::String(text), Value::Object(own)] => (text, own),
                _ => bail!("Fn::Sub needs a text and a map"),
            },
            _ => bail!("Fn::Sub needs a text"),
        };
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let end = rest[start..].find('}').map(|end| start + end).context("Fn::Sub: a ${ is not closed")?;
            let name = &rest[start + 2..end];
            if let Some(literal) = name.strip_prefix('!') {
                out.push_str(&format!("${{{literal}}}"));
            } else if let Some(value) = own.get(name) {
                out.push_str(&self.text(value)?);
            } else if let Some(value) = pseudo(name) {
                out.push_str(&text_of(&value));
            } else if let Some((name, attribute)) = name.split_once('.') {
                out.push_str(&text_of(&self.attribute(name, attribute)?));
            } else {
                out.push_str(&text_of(&self.reference(name)?));
            }
            rest = &rest[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn text(&self, value: &Value) -> anyhow::Result<String> {
        let value = self.resolve(value)?;
        match &value {
            Value::String(text) => {
                ensure!(!text.contains("{{resolve:"), "a dynamic reference cannot be resolved without AWS");
                Ok(text.clone())
            }
            Value::Number(_) | Value::Bool(_) => Ok(text_of(&value)),
            _ => Err(anyhow!("expected one value, found {value}")),
        }
    }

    fn number(&self, value: &Value) -> anyhow::Result<u64> {
        let text = self.text(value)?;
        text.parse().with_context(|| format!("expected a whole number, found {text:?}"))
    }
}

/// Checks what spans resources, and puts dead-letter queues first.
fn check(template: &mut Template) -> anyhow::Result<()> {
    let names: BTreeSet<String> = template.queues.iter().map(|queue| queue.name.clone()).collect();
    let redrives = template.queues.iter().filter_map(|queue| queue.redrive.as_ref()).map(|redrive| redrive.0.clone());
    let schedules = template.functions.iter().flat_map(|function| &function.schedules);
    let dead: BTreeSet<String> =
        redrives.chain(schedules.filter_map(|schedule| schedule.dead_letters.clone())).collect();
    for name in &dead {
        ensure!(names.contains(name), "the dead-letter queue {name} does not exist");
    }
    for queue in &mut template.queues {
        queue.dead = dead.contains(&queue.name);
    }
    template.queues.sort_by_key(|queue| !queue.dead);
    let mut functions = BTreeSet::new();
    for function in &template.functions {
        ensure!(functions.insert(&function.name), "two functions are called {}", function.name);
        for source in &function.sources {
            let queue = template.queues.iter().find(|queue| queue.name == source.queue);
            let queue = queue.with_context(|| format!("{}: there is no queue {}", function.name, source.queue))?;
            // The same refusals as AWS's.
            ensure!(
                queue.visibility_s >= function.timeout_s,
                "the visibility time-out of {} is below the time-out of {}",
                queue.name,
                function.name
            );
            let most = if queue.fifo { 10 } else { 10_000 };
            ensure!((1..=most).contains(&source.batch_size), "{}: BatchSize must be 1 to {most}", queue.name);
            ensure!(
                source.batch_size <= 10 || source.window_s >= 1,
                "{}: a BatchSize above 10 needs a MaximumBatchingWindowInSeconds of at least 1",
                queue.name
            );
            ensure!(!queue.fifo || source.window_s == 0, "{}: a FIFO queue has no batching window", queue.name);
            ensure!(
                source.maximum_concurrency.is_none_or(|most| most >= 2),
                "{}: MaximumConcurrency is at least 2",
                queue.name
            );
        }
    }
    for bucket in &template.buckets {
        for notification in &bucket.notifications {
            let queue = template.queues.iter().find(|queue| queue.name == notification.queue);
            ensure!(queue.is_some_and(|queue| !queue.fifo), "{}: S3 notifies standard queues only", bucket.name);
        }
    }
    Ok(())
}

/// Seconds of `rate(5 minutes)`.
fn rate_s(expression: &str) -> anyhow::Result<u64> {
    let wrong = || format!("the local stack knows rate(number unit) only, not {expression}");
    let inner = expression.strip_prefix("rate(").and_then(|rest| rest.strip_suffix(')')).with_context(wrong)?;
    let (number, unit) = inner.trim().split_once(' ').with_context(wrong)?;
    let number: u64 = number.parse().with_context(wrong)?;
    let unit_s = match unit.trim() {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        _ => bail!(wrong()),
    };
    ensure!(number > 0, "a rate must be above 0");
    Ok(number * unit_s)
}

fn pseudo(name: &str) -> Option<Value> {
    Some(match name {
        "AWS::Region" => json!(REGION),
        "AWS::AccountId" => json!(ACCOUNT),
        "AWS::Partition" => json!("aws"),
        "AWS::URLSuffix" => json!("amazonaws.com"),
        "AWS::StackName" => json!(STACK_NAME),
        "AWS::NoValue" => Value::Null,
        _ => return None,
    })
}

fn name_of_arn(arn: &str) -> anyhow::Result<String> {
    ensure!(arn.starts_with("arn:"), "expected an ARN, found {arn:?}");
    Ok(arn.rsplit(':').next().unwrap_or_default().to_owned())
}

fn single(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object()?;
    let (key, argument) = object.iter().next()?;
    (object.len() == 1).then_some((key.as_str(), argument))
}

fn object_at<'a>(value: &'a Value, key: &str) -> Option<&'a Map<String, Value>> {
    value.get(key)?.as_object()
}

fn object_at_key<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    object.get(key)?.as_object()
}

fn empty() -> &'static Map<String, Value> {
    static EMPTY: std::sync::OnceLock<Map<String, Value>> = std::sync::OnceLock::new();
    EMPTY.get_or_init(Map::new)
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
Parameters:
  TimeScale: {Type: Number, Default: 1}
  TickRate: {Type: String, Default: rate(1 minute)}
  Secret: {Type: String, Default: ""}
  Needed: {Type: String}
  Rate: {Type: Number, Default: 2.5}
Conditions:
  HasSecret: !Not [!Equals [!Ref Secret, ""]]
Globals:
  Function:
    Timeout: 30
    Environment:
      Variables:
        EVERYWHERE: "yes"
Resources:
  Api: {Type: AWS::ApiGatewayV2::Api, Properties: {ProtocolType: HTTP}}
  Integration:
    Type: AWS::ApiGatewayV2::Integration
    Properties: {IntegrationType: AWS_PROXY, IntegrationUri: !GetAtt Worker.Arn, PayloadFormatVersion: "2.0"}
  Get:
    Type: AWS::ApiGatewayV2::Route
    Properties: {RouteKey: "GET /things/{id}", AuthorizationType: JWT, Target: !Sub "integrations/${Integration}"}
  Seen:
    Type: AWS::ApiGatewayV2::Route
    Properties: {RouteKey: "POST /seen", AuthorizationType: NONE, Target: !Sub "integrations/${Integration}"}
  Stage:
    Type: AWS::ApiGatewayV2::Stage
    Properties:
      RouteSettings: {"POST /seen": {ThrottlingRateLimit: !Ref Rate, ThrottlingBurstLimit: 20}}
      AccessLogSettings:
        DestinationArn: !GetAtt Log.Arn
        Format: >-
          {"status":"$context.status",
          "route":"$context.routeKey"}
  Log: {Type: AWS::Logs::LogGroup, Properties: {LogGroupName: !ImportValue something}}
  Things:
    Type: AWS::DynamoDB::Table
    Properties:
      BillingMode: PAY_PER_REQUEST
      KeySchema: [{AttributeName: pk, KeyType: HASH}]
      AttributeDefinitions: [{AttributeName: pk, AttributeType: S}]
      TimeToLiveSpecification: {AttributeName: expires_at, Enabled: true}
  Work:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: !Sub "${AWS::StackName}-work.fifo"
      FifoQueue: true
      VisibilityTimeout: 180
      RedrivePolicy: {deadLetterTargetArn: !GetAtt WorkDead.Arn, maxReceiveCount: 5}
  WorkDead: {Type: AWS::SQS::Queue, Properties: {FifoQueue: true}}
  Gone: {Type: AWS::SQS::Queue, Condition: HasSecret}
  Worker:
    Type: AWS::Serverless::Function
    Metadata: {BuildMethod: rust-cargolambda, BuildProperties: {Binary: worker}}
    Properties:
      Environment:
        Variables:
          TABLE: !Ref Things
          QUEUE: !Ref Work
          SECRET: !If [HasSecret, "{{resolve:secretsmanager:x}}", !Sub ["<${A}>", {A: !Join ["-", [a, !Ref AWS::Region]]}]]
      Events:
        Work: {Type: SQS, Properties: {Queue: !GetAtt Work.Arn, BatchSize: 1, FunctionResponseTypes: [ReportBatchItemFailures]}}
        Tick: {Type: ScheduleV2, Properties: {ScheduleExpression: !Ref TickRate}}
"#;

    fn read(text: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Template> {
        let parameters = parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        parse(text, &parameters, "http://127.0.0.1:9")
    }

    fn error(text: &str, parameters: &[(&str, &str)]) -> String {
        format!("{:#}", read(text, parameters).expect_err("must be refused"))
    }

    #[test]
    fn references_are_resolved() {
        let template = read(SMALL, &[("TickRate", "rate(2 hours)")]).expect("template");
        let function = &template.functions[0];
        assert_eq!(function.environment["TABLE"], "local-Things");
        assert_eq!(function.environment["QUEUE"], "http://127.0.0.1:9/000000000000/local-work.fifo");
        assert_eq!(function.environment["SECRET"], "<a-us-east-1>");
        assert_eq!(function.environment["EVERYWHERE"], "yes");
        assert_eq!((function.timeout_s, function.memory_mb), (30, 128));
        let route = |method: &str, path: &str, public| Route { method: method.into(), path: path.into(), public };
        assert_eq!(function.routes, [route("GET", "/things/{id}", false), route("POST", "/seen", true)]);
        assert_eq!(function.schedules[0].every_s, 7_200);
        assert!(function.sources[0].report_item_failures);
        assert_eq!(template.tables[0].ttl.as_deref(), Some("expires_at"));
    }

    #[test]
    fn the_api_is_read() {
        let api = read(SMALL, &[]).expect("template").api;
        assert_eq!(api.throttles["POST /seen"], Throttle { rate: 2.5, burst: 20 });
        assert_eq!(api.access_log["status"], "$context.status");
        assert_eq!(api.access_log["route"], "$context.routeKey");
        assert!(error(&SMALL.replace("Type: NONE", "Type: AWS_IAM"), &[]).contains("resource Seen"));
        assert!(error(&SMALL.replace("!GetAtt Worker.Arn", "!GetAtt Nobody.Arn"), &[]).contains("no function Nobody"));
        assert!(error(&SMALL.replace("\"2.0\"", "\"1.0\""), &[]).contains("PayloadFormatVersion 2.0"));
        let nosy = SMALL.replace("$context.status", "$context.identity.sourceIp");
        assert!(error(&nosy, &[]).contains("does not log $context.identity.sourceIp"));
    }

    #[test]
    fn dead_letter_queues_come_first_and_conditions_drop() {
        let template = read(SMALL, &[]).expect("template");
        let queues: Vec<_> = template.queues.iter().map(|queue| (queue.name.as_str(), queue.dead)).collect();
        assert_eq!(queues, [("local-WorkDead.fifo", true), ("local-work.fifo", false)]);
        assert_eq!(template.queues[1].redrive, Some(("local-WorkDead.fifo".into(), 5)));
    }

    #[test]
    fn errors_say_what_and_where() {
        assert!(error(SMALL, &[("Typo", "x")]).contains("no parameter Typo"));
        assert!(error(SMALL, &[("TimeScale", "0")]).contains("TimeScale"));
        assert!(error(SMALL, &[("TickRate", "cron(1)")]).contains("event Tick"));
        assert!(error(SMALL, &[("Secret", "x")]).contains("dynamic reference"));
        let unknown = SMALL.replace("AWS::Logs::LogGroup", "AWS::SNS::Topic");
        assert!(error(&unknown, &[]).contains("resource Log: the local stack does not know the type AWS::SNS::Topic"));
        let missing = SMALL.replace("!Ref Things", "!Ref Needed");
        assert!(error(&missing, &[]).contains("nothing is called Needed"));
        let short = SMALL.replace("VisibilityTimeout: 180", "VisibilityTimeout: 20");
        assert!(error(&short, &[]).contains("visibility time-out"));
        assert!(error(&SMALL.replace("Type: SQS", "Type: Kinesis"), &[]).contains("Kinesis"));
        assert!(error(&SMALL.replace("!GetAtt Work.Arn", "!GetAtt Work.Colour"), &[]).contains("Colour"));
    }
}
