use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::*;

/// A running server, stopped with its test.
struct Served {
    dir: TempDir,
    task: JoinHandle<()>,
}

impl Served {
    fn start(limits: Limits) -> Self {
        let dir = TempDir::new().unwrap();
        let listener = Listener::bind(&dir.path().join("d.ctl")).unwrap();
        let serving = serve(
            listener,
            Arc::new(methods()),
            Peers::default(),
            limits,
            std::future::pending(),
        );
        #[expect(clippy::disallowed_methods, reason = "a test owns its task")]
        let task = tokio::spawn(serving);
        Self { dir, task }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("d.ctl")
    }

    /// All that comes back for `request`.
    async fn raw(&self, request: &[u8]) -> String {
        let mut io = UnixStream::connect(self.path()).await.unwrap();
        // The server may refuse before it has read everything.
        let _ = io.write_all(request).await;
        let _ = io.shutdown().await;
        let mut answer = String::new();
        let _ = io.read_to_string(&mut answer).await;
        answer
    }

    async fn error(&self, request: &str) -> (i64, String) {
        let answer: Value = serde_json::from_str(&self.raw(request.as_bytes()).await).unwrap();
        let error = &answer["error"];
        (
            error["code"].as_i64().unwrap(),
            error["message"].as_str().unwrap().to_owned(),
        )
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sum {
    left: u8,
    #[serde(default)]
    right: u8,
}

fn methods() -> Methods {
    let mut methods = Methods::new();
    methods.add("add", "adds two numbers", |sum: Sum| async move {
        let total = sum.left.checked_add(sum.right);
        total.ok_or_else(|| Error::failed("the sum is above 255"))
    });
    methods.add("hang", "never answers", |_: NoParams| {
        std::future::pending::<Result<(), Error>>()
    });
    methods.add("big", "answers with a megabyte", |_: NoParams| async {
        Ok("x".repeat(1 << 20))
    });
    methods
}

fn short() -> Limits {
    Limits {
        line: 200,
        connections: 4,
        recv_timeout: Duration::from_millis(50),
        send_timeout: Duration::from_millis(50),
    }
}

#[tokio::test]
async fn calls_by_name_and_by_position_are_answered_in_order() {
    let served = Served::start(Limits::default());
    let answer = served
        .raw(
            b"{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":{\"left\":1,\"right\":2},\"id\":1}\n\n\
              {\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[3,4],\"id\":\"b\"}\r\n\
              {\"method\":\"add\",\"params\":{\"left\":5},\"id\":-3.5}",
        )
        .await;
    let expected = "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":1}\n\
                    {\"jsonrpc\":\"2.0\",\"result\":7,\"id\":\"b\"}\n\
                    {\"jsonrpc\":\"2.0\",\"result\":5,\"id\":-3.5}\n";
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn bad_requests_get_their_error() {
    let served = Served::start(short());
    let cases: &[(&str, i64, &str)] = &[
        ("garbage\n", -32700, "not JSON"),
        ("{\"method\":\n", -32700, "not JSON"),
        ("[]\n", -32600, "no batches"),
        ("7\n", -32600, "not a request"),
        ("{\"method\":7,\"id\":1}\n", -32600, "not a request"),
        ("{\"id\":1}\n", -32600, "`method` is missing"),
        ("{\"method\":\"add\"}\n", -32600, "`id` is missing"),
        ("{\"method\":\"add\",\"id\":null}\n", -32600, "`id` is missing"),
        ("{\"method\":\"add\",\"id\":{}}\n", -32600, "`id` is missing"),
        (
            "{\"jsonrpc\":\"1.0\",\"method\":\"add\",\"id\":1}\n",
            -32600,
            "not \"2.0\"",
        ),
        ("{\"method\":\"adds\",\"id\":1}\n", -32601, "did you mean `add`?"),
        ("{\"method\":\"\",\"id\":1}\n", -32601, "`rpc.describe` lists them"),
        ("{\"method\":\"add\",\"id\":1}\n", -32602, "missing field `left`"),
        (
            "{\"method\":\"add\",\"params\":{\"left\":1,\"up\":2},\"id\":1}\n",
            -32602,
            "unknown field `up`",
        ),
        (
            "{\"method\":\"add\",\"params\":{\"left\":300},\"id\":1}\n",
            -32602,
            "at column",
        ),
        ("{\"method\":\"add\",\"params\":7,\"id\":1}\n", -32602, "params"),
        (
            "{\"method\":\"add\",\"params\":[200,56],\"id\":1}\n",
            -32000,
            "above 255",
        ),
    ];
    for (request, code, text) in cases {
        let (got, message) = served.error(request).await;
        assert_eq!(got, *code, "{request}: {message}");
        assert!(message.contains(text), "{request}: {message}");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_and_deep_nesting_are_refused() {
    let served = Served::start(Limits::default());
    assert!(served.raw(b"\xff\xfe\n").await.contains("not UTF-8"));
    let deep = format!("{{\"method\":\"add\",\"id\":1,\"params\":{}}}\n", "[".repeat(100_000));
    assert!(served.error(&deep).await.1.contains("not JSON"));
    let nested = format!(
        "{{\"method\":\"add\",\"id\":1,\"params\":{}{}}}\n",
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let (code, message) = served.error(&nested).await;
    assert!(code == -32602 || code == -32700, "{message}");
}

#[tokio::test]
async fn a_line_of_the_longest_length_passes_and_one_more_byte_closes() {
    let served = Served::start(short());
    let head = "{\"method\":\"add\",\"params\":[1,1],\"id\":1}";
    let longest = format!("{head}{}\n", " ".repeat(200 - head.len()));
    assert!(served.raw(longest.as_bytes()).await.contains("\"result\":2"));
    let over = format!("{head}{}\n{head}\n", " ".repeat(201 - head.len()));
    let answer = served.raw(over.as_bytes()).await;
    assert!(
        answer.contains("at most 200 bytes") && answer.lines().count() == 1,
        "{answer}"
    );
}

#[tokio::test(start_paused = true)]
async fn silent_and_slow_clients_are_closed_and_block_nobody() {
    let served = Served::start(short());
    let mut silent = UnixStream::connect(served.path()).await.unwrap();
    let mut hanging = Client::connect(&served.path()).await.unwrap();
    let hang = hanging.call::<Value>("hang", json!({}));
    let mut slow = UnixStream::connect(served.path()).await.unwrap();
    slow.write_all(b"{\"method\":\"big\",\"id\":1}\n").await.unwrap();
    let mut brisk = Client::connect(&served.path()).await.unwrap();
    tokio::select! {
        _ = hang => panic!("`hang` answered"),
        sum = brisk.call::<u8>("add", json!({"left": 20, "right": 22})) => assert_eq!(sum.unwrap(), 42),
    }
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0, "a silent client is closed");
    let mut rest = Vec::new();
    tokio::time::advance(Duration::from_millis(120)).await;
    slow.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() < 1 << 20, "a client that does not read is cut off");
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let served = Served::start(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut first = Client::connect(&served.path()).await.unwrap();
    assert_eq!(first.call::<u8>("add", [1, 1]).await.unwrap(), 2);
    let mut second = Client::connect(&served.path()).await.unwrap();
    let Err(CallError::Answer(error)) = second.call::<u8>("add", [1, 1]).await else {
        panic!("the second connection was served");
    };
    assert_eq!(error.code(), Code::Limit);
}

#[tokio::test]
async fn a_stop_closes_idle_connections_and_finishes_running_calls() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("d.ctl");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (begun, mut begins) = tokio::sync::mpsc::channel::<()>(1);
    let go_on = Arc::new(tokio::sync::Notify::new());
    let waiting = Arc::clone(&go_on);
    let mut methods = methods();
    methods.add("wait", "answers when told", move |_: NoParams| {
        let (begun, waiting) = (begun.clone(), Arc::clone(&waiting));
        async move {
            begun.send(()).await.unwrap();
            waiting.notified().await;
            Ok("done")
        }
    });
    let listener = Listener::bind(&path).unwrap();
    let (methods, limits) = (Arc::new(methods), Limits::default());
    let serving = serve(listener, methods, Peers::default(), limits, async move {
        stopped.await.unwrap();
    });
    let client = async {
        let mut idle = UnixStream::connect(&path).await.unwrap();
        let mut busy = Client::connect(&path).await.unwrap();
        let call = busy.call::<String>("wait", NoParams {});
        let stopper = async {
            begins.recv().await.unwrap();
            stop.send(()).unwrap();
            assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0, "an idle connection is closed");
            assert!(!path.exists(), "the socket is gone");
            go_on.notify_one();
        };
        let (answer, ()) = tokio::join!(call, stopper);
        assert_eq!(answer.unwrap(), "done");
    };
    tokio::join!(serving, client);
}

// RL-10
#[tokio::test]
async fn another_uid_is_refused_even_if_it_reaches_the_socket() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return; // only root can be somebody else
    }
    let served = Served::start(Limits::default());
    for (path, mode) in [(served.dir.path(), 0o755), (&served.path(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let script =
        "import socket,sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(999).decode())";
    let asked = tokio::process::Command::new("python3")
        .args(["-c", script])
        .arg(served.path())
        .uid(65534)
        .output()
        .await;
    let Ok(asked) = asked else {
        return; // no python
    };
    let answer: Value = serde_json::from_slice(&asked.stdout).unwrap();
    assert_eq!(answer["error"]["code"], -32001);
    assert_eq!(answer["error"]["message"], "uid 65534 may not control this daemon");
}

#[tokio::test]
async fn describe_lists_methods_with_the_schema_of_their_parameters() {
    let served = Served::start(Limits::default());
    let mut client = Client::connect(&served.path()).await.unwrap();
    let methods: Vec<Description> = client.call("rpc.describe", NoParams {}).await.unwrap();
    let add = &methods[0];
    assert_eq!((add.name.as_str(), add.summary.as_str()), ("add", "adds two numbers"));
    assert_eq!(add.params.as_value()["required"], json!(["left"]));
}

#[tokio::test]
async fn a_client_reads_result_error_and_end() {
    let served = Served::start(short());
    let mut client = Client::connect(&served.path()).await.unwrap();
    assert_eq!(client.call::<u8>("add", [1, 2]).await.unwrap(), 3);
    let Err(CallError::Answer(error)) = client.call::<u8>("add", [255, 1]).await else {
        panic!("no error");
    };
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (Code::Failed, "the sum is above 255")
    );
    assert!(matches!(
        client.call::<String>("add", [1, 2]).await,
        Err(CallError::Malformed(_))
    ));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn bind(path: &Path) -> Result<Listener, BindError> {
    runtime().block_on(async { Listener::bind(path) })
}

#[test]
fn the_socket_is_for_its_owner_alone_and_goes_with_its_listener() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("d.ctl");
    let listener = bind(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("d.ctl");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let _live = bind(&path).unwrap();
    assert!(matches!(bind(&path), Err(BindError::InUse { .. })));
}

#[test]
fn files_that_are_not_our_sockets_are_left_alone() {
    let dir = TempDir::new().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &dir.path().to_owned()] {
        assert!(
            matches!(bind(path), Err(BindError::Foreign { .. })),
            "{}",
            path.display()
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_socket_that_took_our_place_is_not_removed() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("d.ctl");
    let old = bind(&path).unwrap();
    fs::rename(&path, dir.path().join("moved")).unwrap();
    let _new = bind(&path).unwrap();
    drop(old);
    assert!(path.exists());
}

#[test]
fn codes_and_their_numbers_go_both_ways() {
    for number in [
        -32700, -32600, -32601, -32602, -32603, -32000, -32001, -32002, -32003, -32004, -32005, 17,
    ] {
        assert_eq!(i64::from(Code::from(number)), number);
    }
    assert_eq!(Code::from(17), Code::Other(17));
}

#[test]
fn every_line_of_the_corpus_has_one_answer() {
    let corpus = Path::new("../../fuzz/corpus/control_request");
    let mut lines = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        properties::request(&fs::read(entry.unwrap().path()).unwrap());
        lines += 1;
    }
    assert!(lines >= 10, "{lines}");
}
