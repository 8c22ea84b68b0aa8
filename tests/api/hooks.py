"""Makes requests meet what is there: real ids and audiences in some of them, and one subscription all along."""

import json
import os
import random
import re
import urllib.request

import schemathesis

URL = os.environ["API_URL"]
# The world of tests/fixtures/shapes.
MUNCHKIN = "123-ABC-456"
ORG = "0123456789ABCDEF01234567@AdobeOrg"
AUDIENCES = ["aam:101", "aam:102", "aep:11111111-2222-4333-8444-555555555555"]
FOLDERS = ["aam:1", "aam:root", "aep:root", "aep:22222222-2222-4333-8444-555555555555", "1"]
IS_MUNCHKIN = re.compile(r"^[0-9]{3}-[A-Z]{3}-[0-9]{3}$")

chance = random.Random(1)
# Ids that answers have told, by the path under which they are asked for.
known = {"/previews/": [], "/comparisons/": [], "/downloads/": [], "/people/erase/": [], "/syncs/": []}


def call(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


known["/syncs/"] += [sync["id"] for sync in call("GET", "/syncs")]
subscription = {"munchkin_id": MUNCHKIN, "org_id": call("GET", "/subscription")["org_id"] or ORG}


def one(found):
    """The latest ones more often: the oldest syncs are stopped before long."""
    return chance.choice(found[-5:]) if found else None


def same_instance(value):
    """A second subscription cannot be taken away again, and then every request would have to name one."""
    if isinstance(value, dict):
        return {key: same_instance(member) for key, member in value.items()}
    if isinstance(value, list):
        return [same_instance(item) for item in value]
    return MUNCHKIN if isinstance(value, str) and IS_MUNCHKIN.match(value) else value


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """On the local stack nobody shows a token, so that one that is missing is no mistake."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            operation["security"] = []


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    case.body = same_instance(case.body)
    if isinstance(case.query, dict):
        case.query = same_instance(case.query)
    # A wrong request stays as wrong as it was meant to be.
    if case.meta and case.meta.generation.mode.is_negative:
        return
    parameters = case.path_parameters
    if isinstance(parameters, dict) and "id" in parameters and chance.random() < 0.7:
        for prefix, ids in known.items():
            if path.startswith(prefix) and one(ids):
                parameters["id"] = one(ids)
        if path.startswith("/folders/"):
            parameters["id"] = chance.choice(FOLDERS)
    body = case.body
    if isinstance(body, dict) and path in ("/syncs", "/syncs/preview") and chance.random() < 0.7:
        body["audience_id"] = chance.choice(AUDIENCES)
        if chance.random() < 0.3:
            body["list"] = {"id": chance.choice([1001, 1002, 1003])}
    if isinstance(body, dict) and path.endswith("/compare") and chance.random() < 0.7:
        body["list_id"] = chance.choice([1001, 1002, 1003])


reached = set()


@schemathesis.hook
def after_call(context, case, response):
    path = case.operation.path
    # For tests/api/run, which fails where an operation was never reached.
    operation = f"{case.operation.method.upper()} {path}"
    if operation not in reached:
        reached.add(operation)
        with open(os.environ["API_REACHED"], "a", encoding="utf-8") as file:
            file.write(f"{operation}\n")
    if case.method.upper() != "GET" and response.status_code in (200, 201, 202):
        location = (response.headers.get("location") or [""])[0]
        for prefix, ids in known.items():
            if location.startswith(prefix):
                ids.append(location[len(prefix) :])
        if path == "/people/erase":
            known["/people/erase/"].append(response.json()["id"])
    # What a change of the subscription, or an import of one, may have shut is opened again.
    if path in ("/subscription", "/import") and case.method.upper() != "GET" and response.status_code < 300:
        call("PUT", "/subscription", subscription)
        for sync in call("GET", "/syncs"):
            if sync["status"] == "paused" and chance.random() < 0.5:
                call("POST", f"/syncs/{sync['id']}/run")


@schemathesis.check
def no_fault_of_ours(context, response, case):
    """Busy is no fault, if it says when to come again: Marketo's double has limits, as Marketo has."""
    busy = response.status_code == 503 and "retry-after" in response.headers
    if response.status_code >= 500 and not busy:
        raise AssertionError(f"{response.status_code}: {response.text}")
