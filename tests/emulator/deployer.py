"""Deploys infra/template.yaml onto a running emulator, and answers what infra/local/src/deployment.rs asks for.

Runs in the environment that tests/emulator/run makes.
"""

import json
import os
import threading
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse

from signin import register, sign_in

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = ROOT / "infra" / "template.yaml"
REGION = "us-east-1"
ACCOUNT = "000000000000"
# Where `sam deploy` would put the packages.
ARTIFACTS = "artifacts"
PATIENCE_S = 120
# What tokens must name as their audience.
AUDIENCE = "audience-sync"
# The schedules are fired no more often than this.
SHORTEST_TICK_S = 1
SEND = "sqs:SendMessage"
# Stands in a function's log where a call was not allowed.
REFUSED = "AccessDenied"
# Open to anybody, who then shows the function a secret or a signature.
PROVE_THEMSELVES = {"/hints", "/feeds/{id}/events", "/feeds/{id}/token"}


def check(condition, what):
    """Like assert, and said to whoever asked."""
    if not condition:
        raise AssertionError(what)


class Cloud:
    """The emulator's services."""

    def __init__(self, endpoint, key=("test", "test"), authority=None):
        self.endpoint, self._authority = endpoint, authority
        self._session = boto3.Session(*key, region_name=REGION)
        self._config = Config(
            proxies={}, retries={"total_max_attempts": 1}, read_timeout=PATIENCE_S, s3={"addressing_style": "path"},
            max_pool_connections=32,
        )
        self._clients = {}
        self._lock = threading.Lock()

    def __getattr__(self, service):
        with self._lock:
            if service not in self._clients:
                name = {"functions": "lambda", "users": "cognito-idp"}.get(service, service)
                self._clients[service] = self._session.client(
                    name, endpoint_url=self.endpoint, config=self._config, verify=self._authority
                )
            return self._clients[service]


def status(method, url, token=None):
    """What a request is answered with."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urlopen(Request(url, method=method, headers=headers)) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


def binaries(template):
    """The binary of each function, by its logical id."""
    return {
        name: resource["Metadata"]["BuildProperties"]["Binary"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }


def allow_batches(part):
    """In AWS whoever may send a message may send a batch of them; to the emulator that is an action of its own."""
    if isinstance(part, dict):
        actions = part.get("Action")
        if isinstance(actions, list) and SEND in actions:
            actions.append(f"{SEND}Batch")
    for child in part.values() if isinstance(part, dict) else part if isinstance(part, list) else []:
        allow_batches(child)


class Packages:
    """The functions' packages in the bucket, each put there once."""

    def __init__(self, cloud, folder):
        self._cloud, self._folder, self._keys = cloud, folder, {}
        cloud.s3.create_bucket(Bucket=ARTIFACTS)

    def key(self, binary):
        about = binary.stat()
        identity = (binary, about.st_size, about.st_mtime_ns)
        if identity not in self._keys:
            key = f"{binary.name}-{about.st_mtime_ns}.zip"
            path = self._folder / key
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o755 << 16
            # Stored, for packing a binary with its symbols takes seconds and proves nothing.
            with zipfile.ZipFile(path, "w") as package, package.open(entry, "w") as into:
                into.write(binary.read_bytes())
            with path.open("rb") as body:
                self._cloud.s3.put_object(Bucket=ARTIFACTS, Key=key, Body=body)
            path.unlink()
            self._keys[identity] = key
        return self._keys[identity]


class Deployed:
    """One stack."""

    def __init__(self, cloud, packages, issuer, name):
        self._cloud, self._packages, self._issuer, self.name = cloud, packages, issuer, name
        self.update = 0
        self.parameters = {}
        self._ticker = None

    # ---- What `sam build` and `sam deploy` do.

    def deploy(self, folder, parameters, auth=None):
        """Makes the stack, or updates it. Answers with the address of the API."""
        self.quiet()
        self._folder, self._given = folder, parameters
        template = yaml_parse(TEMPLATE.read_text())
        for name, binary in binaries(template).items():
            key = self._packages.key(folder / binary)
            template["Resources"][name]["Properties"]["CodeUri"] = {"Bucket": ARTIFACTS, "Key": key}
        allow_batches(template)
        parameters = self._with_secrets(parameters)
        auth = auth or {"Auth": "oidc", "AuthIssuer": self._issuer.url, "AuthAudience": AUDIENCE}
        self.parameters = {**parameters, **auth}
        self._change(template)
        self._read()
        self._listen(True)
        self._tick_often()
        self.url = f"{self._cloud.endpoint}/_aws/execute-api/{self._api}/$default"
        return self.url

    def _with_secrets(self, parameters):
        """Credentials stand in secrets, as in AWS, and not in parameters."""
        parameters = dict(parameters)
        for vendor in ("Marketo", "Adobe"):
            names = {"client_id": f"{vendor}ClientId", "client_secret": f"{vendor}ClientSecret"}
            pair = json.dumps({name: parameters.pop(parameter) for name, parameter in names.items()})
            parameters[f"{vendor}SecretArn"] = self._secret(vendor, pair)
        parameters["StreamSecretArn"] = self._secret("Stream", parameters.pop("StreamSecrets"))
        return parameters

    def _secret(self, name, text):
        secrets = self._cloud.secretsmanager
        name = f"{self.name}/{name.lower()}"
        try:
            return secrets.create_secret(Name=name, SecretString=text)["ARN"]
        except secrets.exceptions.ResourceExistsException:
            return secrets.put_secret_value(SecretId=name, SecretString=text)["ARN"]

    def _change(self, template):
        cloud = self._cloud.cloudformation
        key = f"{self.name}-{self.update}.json"
        self._cloud.s3.put_object(Bucket=ARTIFACTS, Key=key, Body=json.dumps(template, default=str).encode())
        change = cloud.create_change_set(
            StackName=self.name,
            ChangeSetName=f"change-{self.update}",
            ChangeSetType="UPDATE" if self.update else "CREATE",
            TemplateURL=f"{self._cloud.endpoint}/{ARTIFACTS}/{key}",
            Parameters=[
                {"ParameterKey": name, "ParameterValue": str(value)} for name, value in self.parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )["Id"]
        described = self._until("the change set", lambda: self._change_set(change))
        replaced = [
            row["ResourceChange"]["LogicalResourceId"]
            for row in described["Changes"]
            if row["ResourceChange"].get("Replacement", "False") != "False"
            and row["ResourceChange"]["ResourceType"] in ("AWS::DynamoDB::Table", "AWS::S3::Bucket")
        ]
        check(not replaced, f"the update would replace {replaced}")
        before = self._kept() if self.update else {}
        cloud.execute_change_set(ChangeSetName=change)
        self._until("the stack", self._complete)
        self.update += 1
        if before:
            after = self._kept()
            lost = {name: (count, after.get(name)) for name, count in before.items() if after.get(name, -1) < count}
            check(not lost, f"the update has lost: {lost}")

    def _change_set(self, change):
        described = self._cloud.cloudformation.describe_change_set(ChangeSetName=change)
        check(described["Status"] != "FAILED", f"the change set failed: {described.get('StatusReason')}")
        return described if described["Status"] == "CREATE_COMPLETE" else None

    def _complete(self):
        status = self._cloud.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]["StackStatus"]
        wanted, before = ("UPDATE_COMPLETE", "CREATE_COMPLETE") if self.update else ("CREATE_COMPLETE", None)
        if status.endswith("IN_PROGRESS") or status == before:
            return None
        if status != wanted:
            events = self._cloud.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
            failed = [
                f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
                for event in events
                if "FAILED" in event["ResourceStatus"]
            ]
            raise AssertionError(f"the stack is {status}: {'; '.join(failed)}")
        return status

    def _until(self, what, look):
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            found = look()
            if found:
                return found
            time.sleep(0.1)
        raise AssertionError(f"waited in vain for {what}")

    def _read(self):
        """What there is now."""
        pages = self._cloud.cloudformation.get_paginator("list_stack_resources").paginate(StackName=self.name)
        rows = [row for page in pages for row in page["StackResourceSummaries"]]
        self._resources = {row["LogicalResourceId"]: row["PhysicalResourceId"] for row in rows}
        self._types = {row["LogicalResourceId"]: row["ResourceType"] for row in rows}
        (self._api,) = self.all("AWS::ApiGatewayV2::Api")
        outputs = self._cloud.cloudformation.describe_stacks(StackName=self.name)["Stacks"][0]["Outputs"]
        self.outputs = {row["OutputKey"]: row["OutputValue"] for row in outputs}

    def all(self, kind):
        """Physical ids of all resources of a type."""
        return [self._resources[name] for name, of in self._types.items() if of == kind]

    def resource(self, name):
        """A resource's physical id."""
        return self._resources[name]

    def _tick_often(self):
        """Fires the schedules on the world's clock: the emulator's own fires each minute, whatever TimeScale says."""
        schedules = [self._cloud.scheduler.get_schedule(Name=name) for name in self.all("AWS::Scheduler::Schedule")]
        check(schedules and all(row["ScheduleExpression"] == "rate(1 minute)" for row in schedules), "other schedules")
        self._schedules = schedules
        every = max(60 * float(self.parameters["TimeScale"]), SHORTEST_TICK_S)
        stop = threading.Event()
        self._ticker = stop

        def run():
            rest = every
            while not stop.wait(rest):
                began = time.monotonic()
                try:
                    self.tick()
                except Exception:
                    # The emulator may have ended before its driver.
                    if not stop.is_set():
                        raise
                # On a slow machine the ticks leave most of the time to what they have set going.
                rest = max(every, 4 * (time.monotonic() - began))

        threading.Thread(target=run, daemon=True).start()

    def tick(self):
        """Fires every schedule, and waits for the functions. What goes wrong in them stands in their logs."""
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(self._fire, self._schedules):
                pass

    def _fire(self, schedule):
        event = schedule["Target"].get("Input") or json.dumps({
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "Scheduled Event",
            "source": "aws.scheduler",
            "account": ACCOUNT,
            "time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "region": REGION,
            "resources": [schedule["Arn"]],
            "detail": "{}",
        })
        self._cloud.functions.invoke(FunctionName=schedule["Target"]["Arn"], Payload=event)

    # ---- What the player asks for.

    def put(self, key, body):
        self._cloud.s3.put_object(Bucket=self.outputs["BucketName"], Key=key, Body=body)

    def work(self):
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]

        def depth(url):
            found = self._cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            visible, in_flight, delayed = (int(found[name]) for name in names)
            name = url.rsplit("/", 1)[-1]
            dead = name.removesuffix(".fifo").endswith("-dead")
            return {"name": name, "visible": visible + delayed, "in_flight": in_flight, "dead": dead}

        with ThreadPoolExecutor() as pool:
            queues = list(pool.map(depth, self.all("AWS::SQS::Queue")))
        return {"queues": queues, "running": self._running()}

    def logs(self):
        """What was logged, by log group."""
        found = {}
        for group in self.all("AWS::Logs::LogGroup"):
            pages = self._cloud.logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            found[group] = [event["message"] for page in pages for event in page["events"]]
        return found

    def refusals(self):
        """What the functions logged of calls that were not allowed."""
        return [line for lines in self.logs().values() for line in lines if REFUSED in line]

    def _running(self):
        """How many invocations run."""
        with urlopen(f"{self._cloud.endpoint}/running") as answer:
            return int(answer.read())

    def _listen(self, enabled):
        for mapping in self.all("AWS::Lambda::EventSourceMapping"):
            self._cloud.functions.update_event_source_mapping(UUID=mapping, Enabled=enabled)

    def quiet(self):
        """Ends the ticks, and lets no invocation begin: an update in the emulator would kill those that run."""
        if self._ticker:
            self._ticker.set()
            self._ticker = None
            self._listen(False)
            self._until("the running invocations", lambda: self._running() == 0)

    def stop(self, folder):
        """Ends the ticks, and writes down what the functions logged."""
        self.quiet()
        kept = os.environ.get("STACK_LOGS_DIR")
        for into in [folder / "logs", *([Path(kept) / "emulator"] if kept else [])]:
            into.mkdir(parents=True, exist_ok=True)
            for group, lines in self.logs().items():
                (into / f"{group.rsplit('/', 1)[-1]}.log").write_text("".join(f"{line}\n" for line in lines))

    # ---- What the README says of removal.

    def _kept(self):
        """How much is in each table and in the bucket, by the name of the resource and its physical id."""
        counts = {}
        for name, kind in self._types.items():
            physical = self._resources[name]
            if kind == "AWS::DynamoDB::Table":
                pages = self._cloud.dynamodb.get_paginator("scan").paginate(TableName=physical, Select="COUNT")
                counts[name, physical] = sum(page["Count"] for page in pages)
            elif kind == "AWS::S3::Bucket":
                counts[name, physical] = len(self._objects(physical))
        return counts

    def _objects(self, bucket):
        pages = self._cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [row["Key"] for page in pages for row in page.get("Contents", [])]

    def remove(self):
        """Removes everything, as the README says, and looks that the data stays until it is removed itself."""
        before = self._kept()
        pools = self.all("AWS::Cognito::UserPool")
        check(len(before) == 6 and all(before.values()), f"five tables and a bucket should hold something: {before}")
        self._cloud.cloudformation.delete_stack(StackName=self.name)
        self._until("the removal", self._gone)
        check(self._kept() == before, f"the removal of the stack has changed the data: {before}, {self._kept()}")
        tables = self._cloud.dynamodb
        for name, physical in before:
            if self._types[name] == "AWS::S3::Bucket":
                # With its versions: without them a deletion only hides.
                for page in self._cloud.s3.get_paginator("list_object_versions").paginate(Bucket=physical):
                    for row in page.get("Versions", []) + page.get("DeleteMarkers", []):
                        self._cloud.s3.delete_object(Bucket=physical, Key=row["Key"], VersionId=row["VersionId"])
                self._cloud.s3.delete_bucket(Bucket=physical)
                continue
            try:
                tables.delete_table(TableName=physical)
            except ClientError as error:
                check("protect" in str(error).lower(), str(error))
            else:
                raise AssertionError(f"{name} is not protected")
            tables.update_table(TableName=physical, DeletionProtectionEnabled=False)
            tables.delete_table(TableName=physical)
        users = self._cloud.users
        for pool in pools:
            users.update_user_pool(UserPoolId=pool, DeletionProtection="INACTIVE")
            users.delete_user_pool(UserPoolId=pool)
        left = self._left()
        check(not left, f"left over: {left}")

    def _gone(self):
        try:
            rows = self._cloud.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        except ClientError:
            return True
        check(not rows[0]["StackStatus"].endswith("FAILED"), f"the removal failed: {rows[0].get('StackStatusReason')}")
        return rows[0]["StackStatus"] == "DELETE_COMPLETE"

    def _left(self):
        cloud = self._cloud
        mappings = cloud.functions.list_event_source_mappings()["EventSourceMappings"]
        names = [
            *cloud.dynamodb.list_tables()["TableNames"],
            *[row["Name"] for row in cloud.s3.list_buckets()["Buckets"]],
            *[url.rsplit("/", 1)[-1] for url in cloud.sqs.list_queues().get("QueueUrls", [])],
            *[row["FunctionName"] for row in cloud.functions.list_functions()["Functions"]],
            *[row["FunctionArn"].rsplit(":", 1)[-1] for row in mappings],
            *[row["Name"] for row in cloud.scheduler.list_schedules()["Schedules"]],
            *[row["RoleName"] for row in cloud.iam.list_roles()["Roles"]],
            *[row["logGroupName"] for row in cloud.logs.describe_log_groups()["logGroups"]],
            *[row["AlarmName"] for row in cloud.cloudwatch.describe_alarms()["MetricAlarms"]],
            *[row["ApiId"] for row in cloud.apigatewayv2.get_apis()["Items"] if row["ApiId"] == self._api],
        ]
        return [name for name in names if self.name in name or name == self._api]

    def look_at_doors(self):
        """Whoever shows no token, or a wrong one, gets to the routes that are open to anybody, and no further."""
        token = self._issuer.token(AUDIENCE, **{"cognito:groups": ["viewer"]})
        foreign = self._issuer.token("another audience")
        stale = self._issuer.token(AUDIENCE, exp=1)
        check(status("GET", f"{self.url}/me", token) == 200, "a token of the issuer is not taken")
        check(status("PUT", f"{self.url}/alerts", token) == 403, "a viewer is taken for an operator")
        routes = self._cloud.apigatewayv2.get_routes(ApiId=self._api)["Items"]
        closed = [row["RouteKey"].split() for row in routes if row["AuthorizationType"] == "JWT"]
        opened = [row["RouteKey"].split() for row in routes if row["AuthorizationType"] == "NONE"]
        check(closed and opened and len(closed) + len(opened) == len(routes), "routes with another authorisation")
        for method, path in closed:
            for shown in (None, foreign, stale, f"{token[:-8]}AAAAAAAA"):
                code = status(method, self.url + path.replace("{", "").replace("}", ""), shown)
                check(code == 401, f"{method} {path} answers {code} to somebody without a token")
        for method, path in opened:
            code = status(method, self.url + path.replace("{", "").replace("}", ""))
            check(code != 401 or path in PROVE_THEMSELVES, f"{method} {path} asks for a token")

    def look_at_bucket(self, tls, authority):
        """Whoever may read the bucket may do so by TLS only."""
        bucket, name, iam = self.outputs["BucketName"], f"{self.name}-reader", self._cloud.iam
        iam.create_user(UserName=name)
        allowed = {"Effect": "Allow", "Action": "s3:*", "Resource": f"arn:aws:s3:::{bucket}*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName=name, PolicyName="read", PolicyDocument=policy)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        key = (made["AccessKeyId"], made["SecretAccessKey"])
        Cloud(tls, key, str(authority)).s3.list_objects_v2(Bucket=bucket)
        try:
            Cloud(self._cloud.endpoint, key).s3.list_objects_v2(Bucket=bucket)
        except ClientError as error:
            check(error.response["Error"]["Code"] == REFUSED, str(error))
        else:
            raise AssertionError("the bucket lets somebody in without TLS")

    def look_at_user_pool(self):
        """With Auth=cognito, the default, a user of the group signs in as the console does, and is an operator.

        Answers with the token.
        """
        self.deploy(self._folder, self._given, {"Auth": "cognito"})
        pool = self.outputs["UserPoolId"]
        password = register(self._cloud.users, pool, "operator")
        token = sign_in(self._cloud.endpoint, self.url, self.outputs["ConsoleUrl"], password)
        with urlopen(Request(f"{self.url}/me", headers={"authorization": f"Bearer {token}"})) as answer:
            me = json.load(answer)
        check(me["role"] == "operator", f"whoever has signed in is {me}")
        foreign = self._issuer.token(AUDIENCE, **{"cognito:groups": ["operator"]})
        code = status("GET", f"{self.url}/me", foreign)
        check(code == 401, f"a token of the issuer before is answered with {code}")
        self.quiet()
        return token

    def refuse_everything(self, function):
        """Takes everything away that a function is allowed."""
        role = self._cloud.functions.get_function_configuration(FunctionName=self._resources[function])["Role"]
        role = role.rsplit("/", 1)[-1]
        names = self._cloud.iam.list_role_policies(RoleName=role)["PolicyNames"]
        check(names, f"the role of {function} allows nothing")
        for name in names:
            self._cloud.iam.delete_role_policy(RoleName=role, PolicyName=name)


class Deployer:
    """All stacks of a run, by the folder that each was deployed for."""

    def __init__(self, endpoint, issuer, folder):
        self._issuer = issuer
        self.token = issuer.token(AUDIENCE, **{"cognito:groups": ["operator"]})
        self.cloud = Cloud(endpoint)
        self._packages = Packages(self.cloud, folder)
        self.stacks = []
        self._by_folder = {}
        self._current = None
        self._lock = threading.Lock()

    def deploy(self, order):
        folder = order["folder"]
        with self._lock:
            stack = None if order["fresh"] else self._by_folder.get(folder)
            parameters = order["parameters"]
            if stack is None:
                stack = Deployed(self.cloud, self._packages, self._issuer, f"sync{len(self.stacks) + 1}")
                self.stacks.append(stack)
                self._by_folder[folder] = stack
            else:
                # An update changes at least this.
                parameters = {**parameters, "LogLevel": "debug"}
            self._current, self._folder = stack, Path(folder)
            return {"url": stack.deploy(Path(order["binaries"]), parameters), "token": self.token}

    def look(self, tls, authority):
        """Who is let in; that nothing that the functions did was refused; and that what is not allowed is refused."""
        stack = self.stacks[-1]
        stack.look_at_doors()
        stack.look_at_bucket(tls, authority)
        token = stack.look_at_user_pool()
        refused = [line for stack in self.stacks for line in stack.refusals()]
        check(not refused, f"{len(refused)} calls were refused, the first: {refused[:1]}")
        stack.refuse_everything("CreateSyncFunction")
        code = status("GET", f"{stack.url}/status", token)
        check(code >= 500, f"without a permission GET /status answers {code}")
        check(stack.refusals(), "the refusal is not in the log")

    def answer(self, method, path, body):
        """What a request is answered with, as JSON."""
        if (method, path) == ("POST", "/deploy"):
            return self.deploy(json.loads(body))
        stack = self._current
        if method == "PUT" and path.startswith("/objects/"):
            return stack.put(unquote(path.removeprefix("/objects/")), body)
        return {
            ("POST", "/tick"): stack.tick,
            ("GET", "/work"): stack.work,
            ("POST", "/stop"): lambda: stack.stop(self._folder),
        }[method, path]()

    def serve(self):
        """Answers on a free loopback port, and returns the address."""
        deployer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def _handle(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                try:
                    status, answer = 200, json.dumps(deployer.answer(self.command, self.path, body)).encode()
                except Exception as error:  # Whoever asked says it.
                    status, answer = 500, f"{type(error).__name__}: {error}".encode()
                self.send_response(status)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = _handle

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"
