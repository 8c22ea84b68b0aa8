"""Deploys infra/template.yaml as the README says: `sam deploy --guided`, answered by Enter wherever there is a default."""

import os
import re
import shutil
import subprocess

from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse

from deployer import ACCOUNT, REGION, ROOT, TEMPLATE, check

NAME = "audience-sync"
PATIENCE_S = 300
# All that must be typed.
TYPED = {
    f"{vendor}SecretArn": f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{NAME}/{vendor.lower()}-AbCdEf"
    for vendor in ("Marketo", "Adobe")
}


def parameters():
    return yaml_parse(TEMPLATE.read_text())["Parameters"]


def prepare(folder):
    """What `sam build` leaves behind, with a package that holds nothing: nobody invokes these functions."""
    package = folder / "package"
    package.mkdir(parents=True)
    (package / "bootstrap").write_text("#!/bin/sh\n")
    built = folder / ".aws-sam" / "build"
    built.mkdir(parents=True)
    template, changed = re.subn(r"CodeUri: \S+", f"CodeUri: {package}", TEMPLATE.read_text())
    check(changed == 5, f"{changed} functions")
    (built / "template.yaml").write_text(template)
    shutil.copy(ROOT / "samconfig.toml", folder)


def deploy_guided(cloud, sam, folder):
    """Deploys and removes a stack; `sam` is the program."""
    prepare(folder)
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": cloud.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "SAM_CLI_TELEMETRY": "0",
    }

    def run(*words, typed=""):
        # It asks a hidden parameter again and again: whoever makes one runs into the end of what is typed.
        ran = subprocess.run(
            [sam, *words], cwd=folder, env=environment, input=typed, text=True, timeout=PATIENCE_S,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        return ran.returncode, ran.stdout

    def given():
        (stack,) = cloud.cloudformation.describe_stacks(StackName=NAME)["Stacks"]
        check(stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), stack["StackStatus"])
        return {row["ParameterKey"]: row["ParameterValue"] for row in stack["Parameters"]}

    # A fuller question than yes or no has its default on Enter: name, region, parameters. Then: no confirmation of the change
    # set; roles may be made; a roll-back if it fails; keep the answers, where and as which stage it says.
    answers = ["", "", *(TYPED.get(name, "") for name in parameters()), "n", "", "", "", "", ""]
    code, said = run("deploy", "--guided", typed="\n".join(answers) + "\n")
    check(code == 0, said)
    wanted = {name: str(about["Default"]) for name, about in parameters().items()} | TYPED
    check(given() == wanted, f"other parameters: {set(given().items()) ^ set(wanted.items())}")

    # What was kept is enough for the next time.
    code, said = run("deploy", "--no-confirm-changeset")
    check("No changes to deploy" in said, said)
    code, said = run("deploy", "--no-confirm-changeset", "--parameter-overrides", "LogLevel=debug")
    check(code == 0, said)
    check(given() == wanted | {"LogLevel": "debug"}, "a parameter that was not named has changed")

    # Without the secrets nothing is deployed, and with a credential in a parameter neither.
    both = [f"{name}={arn}" for name, arn in TYPED.items()]
    for words, missing in (
        (["LogLevel=debug"], "MarketoSecretArn must be given"),
        (both[:1], "AdobeSecretArn must be given"),
        ([*both, "AdobeClientSecret=canary"], "AdobeClientId and AdobeClientSecret must be empty"),
    ):
        code, said = run("deploy", "--stack-name", "another", "--no-confirm-changeset", "--parameter-overrides", *words)
        check(code != 0 and missing in said, said)
    try:
        found = cloud.cloudformation.describe_stacks(StackName="another")["Stacks"]
        check(found[0]["StackStatus"] == "REVIEW_IN_PROGRESS", found[0]["StackStatus"])
    except ClientError:
        pass

    code, said = run("delete", "--no-prompts", "--stack-name", NAME, "--region", REGION)
    check(code == 0, said)
    print("deployed by sam deploy --guided, changed, and removed by sam delete")
