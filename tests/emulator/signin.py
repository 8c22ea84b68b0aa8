"""Signs somebody in at the user pool of a stack, as the console and a browser do: authorization code with PKCE."""

import base64
import hashlib
import json
import secrets
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, build_opener, urlopen

EMAIL = "operator@example.com"


class NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def register(cognito, pool, group):
    """Makes a user in a group, as infra/docs/deploy.md says. Answers with the password, as if they had chosen it already."""
    first, password = (f"{secrets.token_urlsafe(24)}-aA1" for _ in range(2))
    # The emulator's own first passwords are shorter than the pool asks for.
    cognito.admin_create_user(UserPoolId=pool, Username=EMAIL, TemporaryPassword=first)
    cognito.admin_set_user_password(UserPoolId=pool, Username=EMAIL, Password=password, Permanent=True)
    cognito.admin_add_user_to_group(UserPoolId=pool, Username=EMAIL, GroupName=group)
    return password


def sign_in(endpoint, api, console, password):
    """The token that the console would show the API. `endpoint` stands for the host of the pool's sign-in page."""
    with urlopen(f"{api}/console/config") as answer:
        config = json.load(answer)["auth"]
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": config["client_id"],
        "redirect_uri": console,
        "scope": config["scope"],
        "state": secrets.token_urlsafe(16),
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    with urlopen(f"{endpoint}/oauth2/authorize?{urlencode(asked)}") as page:
        page.read()
    # The page holds these in its form.
    form = urlencode({**asked, "username": EMAIL, "password": password}).encode()
    try:
        with build_opener(NoRedirect, ProxyHandler({})).open(f"{endpoint}/login", form) as page:
            raise AssertionError(f"the sign-in page answers {page.status} again")
    except HTTPError as error:
        back = error.headers["location"]
    if not back.startswith(console):
        raise AssertionError("the sign-in page leads elsewhere")
    (code,) = parse_qs(urlsplit(back).query)["code"]
    spent = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": console,
        "client_id": config["client_id"],
        "code_verifier": verifier,
    }
    with urlopen(f"{endpoint}/oauth2/token", urlencode(spent).encode()) as answer:
        return json.load(answer)["access_token"]
