"""A client and a server of HTTP/2 over the library `h2`, without TLS, for tests.

The server mirrors what it is asked, after the request's end; below `/stream` it does so as it comes, and to an extended
CONNECT, too. `/hang` is never answered, `/part` breaks off within its answer.
"""

import socket
import sys
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings


class Peer:
    """One end of a connection."""

    def __init__(self, sock, client):
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.conn = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=client, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.waiting = {}  # by stream: [bytes to send, trailers, ends]
        self.conn.local_settings = h2.settings.Settings(
            client=client,
            initial_values={
                h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL: 0 if client else 1,
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100,
            },
        )
        self.conn.initiate_connection()
        self.flush()

    def flush(self):
        for stream in list(self.waiting):
            self.push(stream)
        self.sock.sendall(self.conn.data_to_send())

    def push(self, stream):
        item = self.waiting[stream]
        try:
            while item[0]:
                room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size)
                if room <= 0:
                    return
                part, item[0] = item[0][:room], item[0][room:]
                self.conn.send_data(stream, part, end_stream=item[2] and not item[0] and not item[1])
                if item[2] and not item[0] and not item[1]:
                    del self.waiting[stream]
                    return
            if item[2]:
                if item[1]:
                    self.conn.send_headers(stream, item[1], end_stream=True)
                else:
                    self.conn.end_stream(stream)
            del self.waiting[stream]
        except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            self.waiting.pop(stream, None)

    def send(self, stream, data, trailers=None, end=False):
        item = self.waiting.setdefault(stream, [b"", None, False])
        item[0] += data
        item[1] = trailers or item[1]
        item[2] = end or item[2]
        self.flush()

    def events(self):
        """What has come; None at the end."""
        data = self.sock.recv(1 << 16)
        if not data:
            return None
        events = self.conn.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return events


class Server:
    """Notes the heads of its requests, and how streams were reset."""

    def __init__(self, speaks_first=False):
        self.speaks_first = speaks_first
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "%s:%d" % self.listener.getsockname()
        self.heads = []
        self.resets = []
        self.changed = threading.Condition()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def note(self, kind, what):
        with self.changed:
            kind.append(what)
            self.changed.notify_all()

    def wait(self, condition):
        with self.changed:
            assert self.changed.wait_for(condition, 20), "waited in vain"

    def serve(self, sock):
        if not self.speaks_first:
            sock.recv(1, socket.MSG_PEEK)
        peer, bodies, heads, trailers = Peer(sock, False), {}, {}, {}
        while (events := peer.events()) is not None:
            for event in events:
                stream = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.RequestReceived):
                    heads[stream], bodies[stream] = dict(event.headers), b""
                    self.note(self.heads, heads[stream])
                    path = heads[stream][":path"]
                    if path.startswith("/stream") or ":protocol" in heads[stream]:
                        peer.conn.send_headers(stream, [(":status", "200"), ("x-seen-by-origin", heads[stream].get("x-seen", "no"))])
                    if path.startswith("/part"):
                        peer.conn.send_headers(stream, [(":status", "200")])
                        peer.send(stream, b"part")
                        peer.conn.reset_stream(stream, 2)
                elif isinstance(event, h2.events.DataReceived):
                    if heads[stream][":path"].startswith("/stream") or ":protocol" in heads[stream]:
                        peer.send(stream, event.data)
                    else:
                        bodies[stream] += event.data
                elif isinstance(event, h2.events.TrailersReceived):
                    trailers[stream] = event.headers
                elif isinstance(event, h2.events.StreamReset):
                    self.note(self.resets, (heads.get(stream, {}).get(":path"), int(event.error_code)))
                elif isinstance(event, h2.events.StreamEnded):
                    self.answer(peer, stream, heads[stream], bodies[stream], trailers.get(stream))
            peer.flush()

    def answer(self, peer, stream, head, body, trailers):
        path = head[":path"]
        if path.startswith(("/hang", "/part")):
            return
        if path.startswith("/stream") or ":protocol" in head:
            return peer.send(stream, b"", trailers, True)
        status = {"/204": "204", "/304": "304"}.get(path, "200")
        fields = [(":status", status), ("x-seen-by-origin", head.get("x-seen", "no"))]
        fields += [("x-method", head[":method"]), ("set-cookie", "a=1"), ("set-cookie", "b=2")]
        if status != "204":
            fields.append(("content-length", str(len(body) if status == "200" and head[":method"] != "HEAD" else 7)))
        peer.conn.send_headers(stream, fields)
        peer.send(stream, b"" if head[":method"] == "HEAD" or status != "200" else body, trailers, True)


class Answer:
    def __init__(self):
        self.interim, self.head, self.fields, self.body, self.trailers, self.reset, self.ended = [], None, [], b"", None, None, False

    @property
    def status(self):
        return self.head and int(self.head[":status"])


class Client:
    """A connection through a proxy's CONNECT."""

    def __init__(self, proxy, target, waits=False):
        host, port = proxy.rsplit(":", 1)
        sock = socket.create_connection((host, int(port)), 20)
        sock.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += sock.recv(1)
        assert head.startswith(b"HTTP/1.1 200"), head
        if waits:
            # Until the server has spoken, or whoever stands before it.
            sock.recv(1, socket.MSG_PEEK)
        self.target, self.answers, self.gone = target, {}, False
        self.peer = Peer(sock, True)

    def begin(self, method="GET", path="/", fields=(), end=True, authority=None):
        stream = self.peer.conn.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", authority or self.target), (":path", path), *fields]
        self.peer.conn.send_headers(stream, head, end_stream=end)
        self.answers[stream] = Answer()
        self.peer.flush()
        return stream

    def websocket(self, path):
        """Opens one (RFC 8441), once the server has said that it may."""
        self.until(lambda: self.peer.conn.remote_settings.get(8) == 1)
        return self.begin("CONNECT", path, [(":protocol", "websocket"), ("sec-websocket-version", "13")], end=False)

    def turn(self):
        events = self.peer.events()
        if events is None:
            self.gone = True
            raise SystemExit("the connection has ended")
        for event in events:
            answer = self.answers.get(getattr(event, "stream_id", None))
            if isinstance(event, h2.events.InformationalResponseReceived):
                answer.interim.append(dict(event.headers)[":status"])
            elif isinstance(event, h2.events.ResponseReceived):
                answer.head, answer.fields = dict(event.headers), event.headers
            elif isinstance(event, h2.events.DataReceived):
                answer.body += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                answer.trailers = dict(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                answer.reset, answer.ended = int(event.error_code), True
            elif isinstance(event, h2.events.StreamEnded):
                answer.ended = True

    def until(self, condition):
        while not condition():
            self.turn()

    def end(self, stream):
        self.until(lambda: self.answers[stream].ended)
        return self.answers.pop(stream)

    def ask(self, method="GET", path="/", fields=(), body=None, trailers=None):
        stream = self.begin(method, path, fields, end=body is None)
        if body is not None:
            self.peer.send(stream, body, trailers, True)
        return self.end(stream)
