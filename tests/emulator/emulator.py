"""Serves the emulator (ministack) on two loopback ports: `emulator.py PLAIN_PORT TLS_PORT CERTIFICATE KEY`.

Functions connect by TLS, as in AWS, because the template's bucket refuses everybody who does not. Its own command
serves one port. `GET /running` says how many invocations run, which AWS tells by a metric, minutes later.
"""

import asyncio
import sys

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.app import app
from ministack.services.lambda_svc import executions_in_flight


async def front(scope, receive, send):
    if scope["type"] != "http" or scope["path"] != "/running":
        await app(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(executions_in_flight()[0]).encode()})


plain, tls, certificate, key = sys.argv[1:]
config = Config()
config.bind = [f"127.0.0.1:{tls}"]
config.insecure_bind = [f"127.0.0.1:{plain}"]
config.certfile, config.keyfile = certificate, key
# As long as its own command keeps a connection.
config.keep_alive_timeout = 75
asyncio.run(serve(front, config))
