"""WebSocket by the libraries `websockets` and `aiohttp`, each with its own server, through a proxy that looks into TLS.

Arguments: the proxy, what vouches for its certificates, the server's certificate and key, and nothing. Prints `done`.
"""

import asyncio, os, ssl, sys

import aiohttp
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus

PROXY, TRUST, CERT, KEY, _ = sys.argv[1:]
trusting = ssl.create_default_context(cafile=TRUST)
serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
serving.load_cert_chain(CERT, KEY)
MUCH = os.urandom(5 << 20)


async def by_websockets():
    async def echo(ws):
        assert ws.request.headers["X-Asked"] == "yes" and ws.request.path == "/echo?q=1"
        async for message in ws:
            if message == "fragments":
                await ws.send(["one", "two", "three"])
            elif message == "leave":
                await ws.close(4002, "bye \u00fc")
            else:
                await ws.send(message)

    def only_echo(connection, request):
        if not request.path.startswith("/echo"):
            return connection.respond(403, "not for you\n")

    async with serve(echo, "127.0.0.1", 0, ssl=serving, process_request=only_echo, subprotocols=["b"], max_size=None) as server:
        port = server.sockets[0].getsockname()[1]
        options = dict(proxy=f"http://{PROXY}", ssl=trusting, server_hostname="a.test", max_size=None)
        try:
            await connect(f"wss://127.0.0.1:{port}/other", **options)
            raise SystemExit("let in")
        except InvalidStatus as error:
            assert error.response.status_code == 403 and error.response.body == b"not for you\n"
        for compression in ["deflate", None]:
            uri = f"wss://127.0.0.1:{port}/echo?q=1"
            async with connect(
                uri, compression=compression, subprotocols=["a", "b"], additional_headers={"X-Asked": "yes"}, **options
            ) as ws:
                assert ws.subprotocol == "b" and bool(ws.protocol.extensions) == bool(compression)
                for message in ["", "h\u00fc", b"\0\xff", "x" * 200_000, MUCH]:
                    await ws.send(message)
                    assert await ws.recv() == message
                await ws.send([b"in", b"", b"pieces"])
                assert await ws.recv() == b"inpieces"
                await ws.send("fragments")
                assert await ws.recv() == "onetwothree"
                await (await ws.ping(b"there?"))
                # Many at a time, answered in turn.
                await asyncio.gather(*(ws.send(str(n)) for n in range(1000)))
                assert sorted([int(await ws.recv()) for _ in range(1000)]) == list(range(1000))
                await ws.send("leave")
                try:
                    raise SystemExit(f"no close but {await ws.recv()!r}")
                except ConnectionClosedError as error:
                    assert (error.rcvd.code, error.rcvd.reason) == (4002, "bye \u00fc")


async def by_aiohttp():
    async def echo(request):
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.data == "leave":
                await ws.close(code=4003, message=b"bye")
            elif message.type == aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/echo", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        # The name is an address, so that no SNI is sent.
        options = dict(proxy=f"http://{PROXY}", ssl=trusting, max_msg_size=0)
        for compress in [0, 15]:
            async with session.ws_connect(f"https://127.0.0.1:{port}/echo", compress=compress, **options) as ws:
                for message in ["", "h\u00fc", "x" * 200_000]:
                    await ws.send_str(message)
                    assert await ws.receive_str() == message
                await ws.send_bytes(MUCH)
                assert await ws.receive_bytes() == MUCH
                await ws.send_str("leave")
                message = await ws.receive()
                assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4003, "bye"), message
    await runner.cleanup()


async def main():
    await by_websockets()
    await by_aiohttp()
    print("done")


asyncio.run(main())
