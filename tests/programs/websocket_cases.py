"""What Autobahn's test suite does, in short, by wsproto and h2 at both ends of a proxy that looks into TLS.

Each case is a connection of its own, over HTTP/1.1 (RFC 6455) or HTTP/2 (RFC 8441). Both ends write down each byte of the
frames that they send and get: these must be the same. The echoing end judges what it gets as wsproto does, and the close
code that it answers must come back.

Arguments: the proxy, what vouches for its certificates, the server's certificate and key, `1` or `2`. Prints the number of cases.
"""

import asyncio, os, socket, ssl, struct, sys

import h2.config, h2.connection, h2.events, h2.settings
from wsproto import ConnectionType, WSConnection, events
from wsproto.connection import Connection
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

PROXY, TRUST, CERT, KEY, VERSION = sys.argv[1:]
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class H1Pipe:
    """The bytes of a connection that was upgraded."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.sent, self.received = bytearray(), bytearray()

    async def send(self, data):
        self.sent += data
        self.writer.write(data)
        await self.writer.drain()

    async def recv(self):
        data = await self.reader.read(65536)
        self.received += data
        return data

    async def end(self):
        self.writer.close()


class H2Pipe:
    """The DATA of the one stream of a connection."""

    def __init__(self, reader, writer, client):
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        self.reader, self.writer, self.h2 = reader, writer, h2.connection.H2Connection(config)
        self.sent, self.received = bytearray(), bytearray()
        self.stream, self.headers = None, None
        self.incoming, self.change = asyncio.Queue(), asyncio.Event()
        if not client:
            offered = {h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values=offered)
        self.h2.initiate_connection()
        self.flush()
        self.pump = asyncio.ensure_future(self.run())

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def run(self):
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    if isinstance(event, (h2.events.RequestReceived, h2.events.ResponseReceived)):
                        self.stream, self.headers = event.stream_id, dict(event.headers)
                    elif isinstance(event, h2.events.DataReceived):
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                        self.incoming.put_nowait(event.data)
                    elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                        self.incoming.put_nowait(b"")
                self.flush()
                self.change.set()
        except (ConnectionError, ssl.SSLError):
            pass
        self.incoming.put_nowait(b"")
        self.change.set()

    async def until(self, condition):
        while not condition():
            self.change.clear()
            if self.pump.done():
                raise EOFError("the connection has ended")
            await self.change.wait()

    async def send(self, data):
        self.sent += data
        data = memoryview(data)
        while data:
            await self.until(lambda: self.h2.local_flow_control_window(self.stream) > 0)
            size = min(len(data), self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(self.stream, bytes(data[:size]))
            self.flush()
            await self.writer.drain()
            data = data[size:]

    async def recv(self):
        data = await self.incoming.get()
        self.received += data
        return data

    async def end(self):
        # First the stream, then, once both have done so, the connection; for h2 a GOAWAY before is the end of all.
        self.h2.end_stream(self.stream)
        self.flush()
        if self.h2.config.client_side:
            assert await self.incoming.get() == b""
            self.writer.close()
        else:
            await self.pump
            self.writer.close()


# --- the echoing end

accepted = asyncio.Queue()


async def serve(reader, writer):
    try:
        if writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            pipe = H2Pipe(reader, writer, False)
            await pipe.until(lambda: pipe.headers)
            assert pipe.headers[":method"] == "CONNECT" and pipe.headers[":protocol"] == "websocket", pipe.headers
            deflate = PerMessageDeflate()
            answer = [(":status", "200")]
            extensions = []
            if "permessage-deflate" in pipe.headers.get("sec-websocket-extensions", ""):
                accepted_with = deflate.accept(pipe.headers["sec-websocket-extensions"])
                answer.append(("sec-websocket-extensions", f"permessage-deflate; {accepted_with}".rstrip("; ")))
                extensions = [deflate]
            pipe.h2.send_headers(pipe.stream, answer)
            pipe.flush()
            await echo(pipe, Connection(ConnectionType.SERVER, extensions))
        else:
            pipe = H1Pipe(reader, writer)
            ws = WSConnection(ConnectionType.SERVER)
            request = None
            while request is None:
                ws.receive_data(await reader.read(65536))
                request = next((e for e in ws.events() if isinstance(e, events.Request)), None)
            wanted = [PerMessageDeflate()] if any("permessage-deflate" in str(e) for e in request.extensions) else []
            writer.write(ws.send(events.AcceptConnection(extensions=wanted)))
            await echo(pipe, ws)
    except (ConnectionError, ssl.SSLError, EOFError):
        pass
    await pipe.end()
    accepted.put_nowait(pipe)


async def echo(pipe, ws):
    """Sends each message and ping back as it came, until the end."""
    kind = None
    while data := await pipe.recv():
        out = bytearray()
        try:
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, events.Ping):
                    out += ws.send(event.response())
                elif isinstance(event, (events.TextMessage, events.BytesMessage)):
                    out += ws.send(type(event)(event.data, message_finished=event.message_finished))
                elif isinstance(event, events.CloseConnection):
                    out += ws.send(event.response())
        except RemoteProtocolError as error:
            out += ws.send(error.event_hint or events.CloseConnection(code=1002))
        except LocalProtocolError:
            pass  # what comes after the close
        if out:
            await pipe.send(bytes(out))


# --- the asking end

async def tunnel(port):
    host, proxy_port = PROXY.rsplit(":", 1)
    sock = socket.create_connection((host, int(proxy_port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 200"), head
    context = ssl.create_default_context(cafile=TRUST)
    context.set_alpn_protocols(["h2"] if VERSION == "2" else ["http/1.1"])
    sock.setblocking(False)
    return await asyncio.open_connection(sock=sock, ssl=context, server_hostname="a.test")


async def connect(port, deflate):
    """A pipe whose handshake is done, and wsproto's reader of what comes back."""
    reader, writer = await tunnel(port)
    offer = PerMessageDeflate()
    if VERSION == "1":
        pipe = H1Pipe(reader, writer)
        ws = WSConnection(ConnectionType.CLIENT)
        writer.write(ws.send(events.Request("a.test", "/echo", extensions=[offer] if deflate else [])))
        accepted_by = None
        while accepted_by is None:
            data = await reader.read(65536)
            assert data, "closed in the handshake"
            ws.receive_data(data)
            accepted_by = next((e for e in ws.events() if isinstance(e, events.AcceptConnection)), None)
        assert bool(accepted_by.extensions) == deflate, accepted_by
        return pipe, ws
    pipe = H2Pipe(reader, writer, True)
    await pipe.until(lambda: pipe.h2.remote_settings.enable_connect_protocol == 1)
    headers = [
        (":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", "a.test"),
        (":path", "/echo"), ("sec-websocket-version", "13"),
    ]
    if deflate:
        headers.append(("sec-websocket-extensions", f"permessage-deflate; {offer.offer()}"))
    pipe.h2.send_headers(1, headers)
    pipe.flush()
    await pipe.until(lambda: pipe.headers)
    assert pipe.headers[":status"] == "200", pipe.headers
    if deflate:
        offer.finalize(pipe.headers["sec-websocket-extensions"])
    return pipe, Connection(ConnectionType.CLIENT, [offer] if deflate else [])


def frame(opcode, payload=b"", fin=True, rsv=0, mask=None):
    """A client's frame, right or wrong (RFC 6455 §5.2)."""
    mask = os.urandom(4) if mask is None else mask
    size = len(payload)
    length = (
        bytes([0x80 | size]) if size < 126
        else b"\xfe" + struct.pack(">H", size) if size < 65536
        else b"\xff" + struct.pack(">Q", size)
    )
    key = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + mask + masked


def cut(data, size):
    return [data[at:at + size] for at in range(0, len(data), size)]


def closing(code=1000, reason=b""):
    return frame(CLOSE, struct.pack(">H", code) + reason)


class Case:
    """Pieces to send, and what must come back: messages, pongs, and the close code."""

    def __init__(self, name, pieces, messages=(), pongs=(), close=1000, deflate=False):
        self.name, self.pieces, self.messages, self.pongs = name, pieces, list(messages), list(pongs)
        self.close, self.deflate = close, deflate

    async def run(self, port):
        pipe, ws = await connect(port, self.deflate)
        pieces = self.pieces(ws) if callable(self.pieces) else self.pieces

        async def send():
            for piece in pieces:
                await pipe.send(piece)

        sending = asyncio.ensure_future(send())
        messages, pongs, close, parts = [], [], None, []
        while close is None:
            data = await pipe.recv()
            assert data, f"{self.name}: ended without a close"
            ws.receive_data(data)
            for event in ws.events():
                if isinstance(event, (events.TextMessage, events.BytesMessage)):
                    parts.append(event.data)
                    if event.message_finished:
                        messages.append(type(event.data)().join(parts))
                        parts = []
                elif isinstance(event, events.Pong):
                    pongs.append(bytes(event.payload))
                elif isinstance(event, events.CloseConnection):
                    close = event.code
        await sending
        await pipe.end()
        far = await accepted.get()
        wrong = [
            what for what, good in [
                ("sent", far.received == pipe.sent), ("got", far.sent == pipe.received),
                ("messages", messages == self.messages), ("pongs", pongs == self.pongs), ("close", close == self.close),
            ] if not good
        ]
        assert not wrong, (self.name, wrong, close, pongs, len(messages), len(far.received), len(pipe.sent))


def cases():
    sizes = [0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 300_000]
    for size in sizes:
        text, data = "x" * size, os.urandom(size)
        yield Case(f"text of {size}", [frame(TEXT, text.encode()), closing()], [text])
        yield Case(f"binary of {size}", [frame(BINARY, data), closing()], [data])
    text = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!! \U0001f600" * 20
    data = os.urandom(1000)
    for size in [1, 2, 3, 7]:
        whole = frame(TEXT, text.encode()) + frame(BINARY, data) + closing()
        yield Case(f"cut to pieces of {size}", cut(whole, size), [text, data])
    yield Case("all in one piece", [frame(TEXT, b"a") + frame(PING, b"p") + frame(TEXT, b"b") + closing()], ["a", "b"], [b"p"])
    for mask in [b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x01\x02\x03\x04"]:
        yield Case(f"mask {mask}", [frame(BINARY, data, mask=mask), closing()], [data])

    # Pings.
    yield Case("ping", [frame(PING), closing()], pongs=[b""])
    yield Case("ping with bytes", [frame(PING, data[:125]), closing()], pongs=[data[:125]])
    yield Case("ten pings", [frame(PING, bytes([n])) for n in range(10)] + [closing()], pongs=[bytes([n]) for n in range(10)])
    yield Case("a ping that is too long", [frame(PING, data[:126])], close=1002)
    yield Case("pongs that nobody asked for", [frame(PONG), frame(PONG, b"x"), frame(PING, b"y"), closing()], pongs=[b"y"])

    # Reserved bits and opcodes.
    for rsv in [1, 2, 4, 7]:
        yield Case(f"reserved bits {rsv}", [frame(TEXT, b"good"), frame(TEXT, b"bad", rsv=rsv)], ["good"], close=1002)
    for opcode in [3, 7, 11, 15]:
        yield Case(f"opcode {opcode}", [frame(TEXT, b"good"), frame(opcode, b"bad")], ["good"], close=1002)

    # Fragments.
    pieces = cut(text.encode(), 13)
    fragments = [frame(TEXT if n == 0 else 0, p, fin=n == len(pieces) - 1) for n, p in enumerate(pieces)]
    yield Case("fragments, within characters", fragments + [closing()], [text])
    mixed = [part for n, fragment in enumerate(fragments) for part in (fragment, frame(PING, bytes([n])))]
    pongs = [bytes([n]) for n in range(len(fragments))]
    yield Case("pings between fragments", mixed + [closing()], [text], pongs)
    yield Case("pings between fragments, cut", cut(b"".join(mixed) + closing(), 5), [text], pongs)
    yield Case("empty fragments", [frame(TEXT, b"", fin=False), frame(0, b"", fin=False), frame(0, b""), closing()], [""])
    yield Case("a ping in fragments", [frame(PING, b"x", fin=False)], close=1002)
    yield Case("a continuation of nothing", [frame(0, b"x")], close=1002)
    yield Case("a message within a message", [frame(TEXT, b"x", fin=False), frame(TEXT, b"y")], [], close=1002)

    # UTF-8.
    for bad in [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ok\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80x", b"\xe2\x82"]:
        yield Case(f"invalid UTF-8 {bad}", [frame(TEXT, bad)], close=1007)
    yield Case("any bytes are good in binary", [frame(BINARY, bytes(range(256))), closing()], [bytes(range(256))])

    # Closes.
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]:
        yield Case(f"close with {code}", [closing(code)], close=code)
    for code in [0, 999, 1005, 1006, 1016, 2999]:
        yield Case(f"close with {code}", [closing(code)], close=1002)
    yield Case("a close without a code", [frame(CLOSE)], close=1005)
    yield Case("a close of one byte", [frame(CLOSE, b"\x03")], close=1002)
    yield Case("a close with a long reason", [closing(1000, b"r" * 123)])
    yield Case("a close whose reason is too long", [closing(1000, b"r" * 124)], close=1002)
    yield Case("a close whose reason is no text", [closing(1000, b"\xff\xfe")], close=1007)

    # Much of it.
    much = os.urandom(16 << 20)
    yield Case("16 MiB in one frame", [frame(BINARY, much), closing()], [much])
    parts = cut(much, 65536)
    yield Case(
        "16 MiB in fragments",
        [frame(BINARY if n == 0 else 0, p, fin=n == len(parts) - 1) for n, p in enumerate(parts)] + [closing()],
        [much],
    )
    yield Case("ten thousand messages", [b"".join(frame(BINARY, data[:n % 200]) for n in range(10_000)), closing()],
               [data[:n % 200] for n in range(10_000)])

    # Compressed by what the ends have agreed on.
    def compressed(size):
        def pieces(ws):
            out = [bytes(ws.send(events.TextMessage(text * n))) for n in (1, 1, 300)]
            return [piece for part in out for piece in cut(part, size)] + [bytes(ws.send(events.CloseConnection(code=1000)))]
        return pieces

    for size in [1 << 20, 100, 1]:
        yield Case(f"permessage-deflate, cut to {size}", compressed(size), [text, text, text * 300], deflate=True)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    count = 0
    for case in cases():
        try:
            await asyncio.wait_for(case.run(port), 30)
        except Exception as error:
            raise SystemExit(f"{case.name}: {error!r}") from error
        count += 1
    print(count)


asyncio.run(main())
