//! curl.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::process::Command;

use crate::process::run;
use crate::wire::header;

/// A run of curl to come.
#[derive(Debug)]
pub struct Curl(Command);

/// What curl got.
#[derive(Clone, Debug)]
pub struct CurlAnswer {
    /// curl's own exit code; 0 is success, whatever the status.
    pub exit: i32,
    /// Status of the last answer; 0 if there was none.
    pub status: u16,
    /// Status of a proxy's answer to CONNECT; 0 if there was none.
    pub connect_status: u16,
    /// The heads of all answers, a proxy's to CONNECT among them.
    pub head: String,
    /// The body of the last answer.
    pub body: Vec<u8>,
    /// What curl said; with `-v`, the whole conversation.
    pub stderr: String,
    /// All that curl's `%{json}` tells.
    pub facts: Value,
}

/// Prepares a request for `url`: no proxy, no configuration file, one minute at most.
pub fn curl(url: &str) -> Curl {
    let mut command = Command::new("curl");
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
        "no_proxy",
        "NO_PROXY",
    ] {
        command.env_remove(name);
    }
    command.args(["-q", "-sS", "--max-time", "55", url]);
    Curl(command)
}

impl Curl {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.0.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    /// Goes through an HTTP proxy.
    #[must_use]
    pub fn proxy(self, addr: SocketAddr) -> Self {
        self.arg("-x").arg(format!("http://{addr}"))
    }

    /// Goes through an HTTP proxy with CONNECT, for `http:` URLs, too.
    #[must_use]
    pub fn tunnel(self, addr: SocketAddr) -> Self {
        self.proxy(addr).arg("-p")
    }

    /// Trusts the authority in this file alone.
    #[must_use]
    pub fn trust(self, file: impl AsRef<OsStr>) -> Self {
        self.arg("--cacert").arg(file)
    }

    /// Sends a header.
    #[must_use]
    pub fn header(self, line: &str) -> Self {
        self.arg("-H").arg(line)
    }

    /// Runs it.
    pub async fn run(mut self) -> CurlAnswer {
        let dir = tempfile::tempdir().unwrap();
        let (head, body) = (dir.path().join("head"), dir.path().join("body"));
        self.0.arg("-o").arg(&body).arg("-D").arg(&head).args(["-w", "%{json}"]);
        let exited = run(self.0).await;
        let facts: Value = serde_json::from_str(&exited.stdout).unwrap_or_default();
        let status = |key: &str| {
            facts[key]
                .as_u64()
                .and_then(|status| u16::try_from(status).ok())
                .unwrap_or_default()
        };
        CurlAnswer {
            exit: exited.code.unwrap_or(-1),
            status: status("response_code"),
            connect_status: status("http_connect"),
            head: String::from_utf8_lossy(&fs::read(&head).unwrap_or_default()).into_owned(),
            body: fs::read(&body).unwrap_or_default(),
            stderr: exited.stderr,
            facts,
        }
    }
}

impl CurlAnswer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header of the last answer, the first of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let last = self.head.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
        header(last, name)
    }

    /// Asserts success, this status and this body.
    pub fn assert(&self, status: u16, body: &str) {
        assert_eq!(
            (self.exit, self.status, self.text().as_str()),
            (0, status, body),
            "{self:?}"
        );
    }
}
