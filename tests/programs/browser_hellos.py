"""The ClientHellos of browsers, by curl_cffi: GREASE, ECH, post-quantum key shares, which make them longer than a segment.

Each comes twice: as it is, and cut to small segments on its way to the proxy.
Arguments: the proxy, what vouches for its certificates, a URL where `hello` is, and the browsers. Prints a line for each
request: browser, version of HTTP, status.
"""

import socket, sys, threading

from curl_cffi import CurlHttpVersion, requests

PROXY, TRUST, URL, *BROWSERS = sys.argv[1:]
VERSIONS = {CurlHttpVersion.V1_1: "1.1", CurlHttpVersion.V2_0: "2"}


def cut(source, sink):
    """Hands bytes on; what comes first, in many writes."""
    sent = 0
    while data := source.recv(65536):
        size = 97 if sent < 5000 else 65536
        for at in range(0, len(data), size):
            sink.sendall(data[at:at + size])
        sent += len(data)
    sink.shutdown(socket.SHUT_WR)


def cutter():
    """Where one listens who cuts what clients say to the proxy."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            client, _ = listener.accept()
            host, port = PROXY.rsplit(":", 1)
            proxy = socket.create_connection((host, int(port)))
            proxy.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for pair in [(client, proxy), (proxy, client)]:
                threading.Thread(target=cut, args=pair, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return "%s:%d" % listener.getsockname()


cutting = cutter()
for browser in BROWSERS:
    for proxy in [PROXY, cutting]:
        with requests.Session(impersonate=browser, trust_env=False, verify=TRUST) as session:
            session.proxies = {"https": f"http://{proxy}"}
            answer = session.get(URL, timeout=20)
            assert answer.text == "hello\n", (browser, answer.text)
            print(browser, VERSIONS[answer.http_version], answer.status_code)
