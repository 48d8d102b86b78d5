"""A site as an ASGI application: pages, uploads, events, and a WebSocket that echoes."""

import asyncio, hashlib

steps = {}  # name of a stream of events: those to come


def queue(name):
    return steps.setdefault(name, asyncio.Queue())


async def body(receive):
    """The pieces of a request's body."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def answer(send, content, kind=b"text/plain", status=200, headers=()):
    headers = [(b"content-type", kind), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def http(scope, receive, send):
    path, query = scope["path"], scope["query_string"].decode()
    if path == "/version":
        await answer(send, scope["http_version"].encode())
    elif path == "/upload":
        digest, size = hashlib.sha256(), 0
        async for piece in body(receive):
            digest.update(piece)
            size += len(piece)
        await answer(send, f"{size} {digest.hexdigest()}".encode())
    elif path == "/bytes":
        await answer(send, (bytes(range(256)) * (int(query) // 256 + 1))[: int(query)], b"application/octet-stream")
    elif path == "/events":
        # `/events?NAME` sends an event for each `/step/WHAT?NAME`, until one named `end`.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while (step := await queue(query).get()) != "end":
            await send({"type": "http.response.body", "body": f"data: {step}\n\n".encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    elif path.startswith("/step/"):
        queue(query).put_nowait(path.removeprefix("/step/"))
        await answer(send, b"ok")
    elif path == "/both":
        # Each piece goes back as it comes.
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async for piece in body(receive):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        await answer(send, b"nothing here", status=404)


async def websocket(scope, receive, send):
    await receive()
    offered = scope["subprotocols"]
    if scope["path"] != "/echo":
        await send({"type": "websocket.close", "code": 4404})
        return
    await send({"type": "websocket.accept", "subprotocol": offered[0] if offered else None})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "version":
            await send({"type": "websocket.send", "text": scope["http_version"]})
        elif message.get("text") == "leave":
            await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
            return
        else:
            await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "http":
        await http(scope, receive, send)
    else:
        await websocket(scope, receive, send)
