"""gRPC: a slow consumer, a deadline, a cancellation, many calls at a time; what one side decides, the other one notices.

Arguments: the proxy, what vouches for its certificates, the server's certificate and key. Prints `done`.
"""

import sys, threading
from concurrent import futures

import grpc

proxy, trust, cert, key = sys.argv[1:]
MESSAGE = bytes(range(256)) * 256
COUNT = 1500
sent = 0
given_up = {"deadline": threading.Event(), "cancel": threading.Event()}


def much(request, context):
    global sent
    for _ in range(COUNT):
        sent += 1
        yield MESSAGE


def wait(request, context):
    """Says that it is there, and then nothing until the client gives up."""
    gone = given_up[request.decode()]
    context.add_callback(gone.set)
    yield b"here"
    gone.wait(20)


def add_up(requests, context):
    return str(sum(len(request) for request in requests)).encode()


raw = dict(request_deserializer=None, response_serializer=None)
handlers = grpc.method_handlers_generic_handler("t.T", {
    "Much": grpc.unary_stream_rpc_method_handler(much, **raw),
    "Wait": grpc.unary_stream_rpc_method_handler(wait, **raw),
    "AddUp": grpc.stream_unary_rpc_method_handler(add_up, **raw),
    "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request, **raw),
})
server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[handlers])
read = lambda name: open(name, "rb").read()
port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(read(key), read(cert))]))
server.start()
options = [("grpc.http_proxy", f"http://{proxy}"), ("grpc.ssl_target_name_override", "a.test")]
with grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(read(trust)), options) as channel:
    echo = channel.unary_unary("/t.T/Echo")

    # A stream that is not read holds its server up, and no other stream.
    slow = channel.unary_stream("/t.T/Much")(b"", timeout=50)
    assert next(slow) == MESSAGE
    for n in range(300):
        assert echo(b"%d" % n, timeout=20) == b"%d" % n
    assert sent * len(MESSAGE) < 40 << 20, sent
    assert sum(message == MESSAGE for message in slow) == COUNT - 1

    try:
        for message in channel.unary_stream("/t.T/Wait")(b"deadline", timeout=1):
            assert message == b"here"
        raise SystemExit("no deadline")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert given_up["deadline"].wait(20), "the server has not heard of the deadline"

    call = channel.unary_stream("/t.T/Wait")(b"cancel", timeout=50)
    assert next(call) == b"here"
    call.cancel()
    assert given_up["cancel"].wait(20), "the server has not heard of the cancellation"

    many = [echo.future(b"%d" % n, timeout=30) for n in range(500)]
    assert [call.result() for call in many] == [b"%d" % n for n in range(500)]
    total = channel.stream_unary("/t.T/AddUp")((MESSAGE for _ in range(400)), timeout=30)
    assert int(total) == 400 * len(MESSAGE)
server.stop(0)
print("done")
