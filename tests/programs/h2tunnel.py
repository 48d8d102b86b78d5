# Behind h2peer.py: a proxy whose clients speak HTTP/2 with it, and the tunnels of such a client.

import ssl


class Proxy(Server):
    """Opens what CONNECT asks for, but not `closed.test`, for which it wants a password."""

    def serve(self, sock):
        sock.recv(1, socket.MSG_PEEK)
        peer, ends, lock = Peer(sock, False), {}, threading.Lock()

        def bring(stream, end):
            while True:
                data = end.recv(1 << 16)
                with lock:
                    try:
                        peer.send(stream, data, None, not data)
                    except (OSError, h2.exceptions.ProtocolError):
                        return
                if not data:
                    return

        while data := sock.recv(1 << 16):
            with lock:
                events = peer.conn.receive_data(data)
            for event in events:
                stream = getattr(event, "stream_id", None)
                if isinstance(event, h2.events.RequestReceived):
                    head = dict(event.headers)
                    assert head[":method"] == "CONNECT" and ":path" not in head, head
                    self.note(self.heads, head)
                    host, port = head[":authority"].rsplit(":", 1)
                    if host == "closed.test":
                        with lock:
                            peer.conn.send_headers(stream, [(":status", "407"), ("proxy-authenticate", "Basic realm=x")])
                            peer.send(stream, b"who", None, True)
                        continue
                    end = ends[stream] = socket.create_connection(("127.0.0.1", int(port)), 20)
                    with lock:
                        peer.conn.send_headers(stream, [(":status", "200")])
                        peer.flush()
                    threading.Thread(target=bring, args=(stream, end), daemon=True).start()
                elif isinstance(event, h2.events.DataReceived) and stream in ends:
                    ends[stream].sendall(event.data)
                    with lock:
                        peer.conn.acknowledge_received_data(event.flow_controlled_length, stream)
                elif isinstance(event, h2.events.StreamEnded) and stream in ends:
                    ends[stream].shutdown(socket.SHUT_WR)
                elif isinstance(event, h2.events.StreamReset):
                    self.note(self.resets, (stream, int(event.error_code)))
            with lock:
                peer.flush()


class Tunnel:
    """What a CONNECT to `target` has opened."""

    def __init__(self, client, target, fields=()):
        self.client = client
        self.stream = client.peer.conn.get_next_available_stream_id()
        client.peer.conn.send_headers(self.stream, [(":method", "CONNECT"), (":authority", target), *fields])
        self.answer = client.answers[self.stream] = Answer()
        client.peer.flush()
        client.until(lambda: self.answer.head or self.answer.ended)

    def send(self, data, end=False):
        self.client.peer.send(self.stream, data, None, end)

    def take(self, condition):
        """Takes what has come once `condition` holds of it."""
        self.client.until(lambda: condition(self.answer.body) or self.answer.ended)
        data, self.answer.body = self.answer.body, b""
        return data

    def ask(self, request):
        self.send(request)
        return self.take(lambda data: b"\r\n\r\n" in data and data.endswith((b"\n", b">")))


class Tls:
    """TLS in a tunnel."""

    def __init__(self, tunnel, name, trust):
        self.tunnel, self.incoming, self.outgoing = tunnel, ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=trust)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)
        self.drive(self.tls.do_handshake)

    def drive(self, step):
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self.tunnel.send(self.outgoing.read())
                more = self.tunnel.take(len)
                self.incoming.write(more) if more else self.incoming.write_eof()
            finally:
                if self.outgoing.pending:
                    self.tunnel.send(self.outgoing.read())

    def ask(self, request):
        self.drive(lambda: self.tls.write(request))
        data = b""
        while not (b"\r\n\r\n" in data and data.endswith(b"\n")):
            data += self.drive(lambda: self.tls.read(1 << 16))
        return data
