//! Chromium without a screen, driven by chromedriver (W3C WebDriver).

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command as Blocking;

use serde_json::{Value, json};
use sluice_testkit::{Port, Process, assert_eventually, curl};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

/// A browser with a profile of its own, all of whose requests go to one proxy.
#[derive(Debug)]
pub struct Browser {
    port: Port,
    session: String,
    process: Process,
    _home: TempDir,
}

impl Browser {
    /// Starts one that trusts the CA in the file `trust`, if there is one, and no other of ours.
    pub async fn start(proxy: SocketAddr, trust: Option<&Path>) -> Self {
        let home = tempfile::Builder::new().prefix("sluice-browser-").tempdir().unwrap();
        database(home.path(), trust);
        let port = Port::free();
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={}", port.number()))
            .env("HOME", home.path());
        let process = Process::start("chromedriver", command, home.path());
        assert_eventually!(TcpStream::connect(port.addr()).await.is_ok());
        let mut browser = Self {
            port,
            session: String::new(),
            process,
            _home: home,
        };
        let args = [
            "--headless=new",
            "--no-sandbox", // it refuses to have one when it is run by root
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // It ends with chromedriver, then, however that ends.
            "--remote-debugging-pipe",
        ];
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "proxy": {"proxyType": "manual", "httpProxy": proxy.to_string(), "sslProxy": proxy.to_string()},
            "goog:chromeOptions": {"args": args},
            "timeouts": {"script": 40_000, "pageLoad": 40_000},
        }}});
        let session = browser.call("POST", "/session", &capabilities).await;
        session["sessionId"].as_str().unwrap().clone_into(&mut browser.session);
        browser
    }

    /// Opens a page.
    ///
    /// # Errors
    /// What the browser says in place of the page, such as `net::ERR_SSL_PROTOCOL_ERROR`.
    pub async fn open(&self, url: &str) -> Result<(), String> {
        let answer = self.call("POST", &self.path("/url"), &json!({"url": url})).await;
        answer["message"]
            .as_str()
            .map_or(Ok(()), |message| Err(message.to_owned()))
    }

    /// Runs the body of an `async` function in the page, and takes what it returns.
    pub async fn run(&self, body: &str) -> Value {
        let script = format!("return (async () => {{ {body} }})()");
        let answer = self
            .call(
                "POST",
                &self.path("/execute/sync"),
                &json!({"script": script, "args": []}),
            )
            .await;
        assert!(answer["error"].is_null(), "{answer}");
        answer
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.call("DELETE", &self.path(""), &Value::Null).await;
        self.process.kill().await;
    }

    fn path(&self, command: &str) -> String {
        format!("/session/{}{command}", self.session)
    }

    /// What chromedriver answers as `value`.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut request = curl(&format!("http://{}{path}", self.port.addr())).args(["-X", method]);
        if !body.is_null() {
            request = request.arg("--data-binary").arg(body.to_string());
        }
        let answer = request.run().await;
        let mut answer: Value = serde_json::from_slice(&answer.body).unwrap();
        answer["value"].take()
    }
}

/// The certificates that Chromium finds in a home (NSS).
fn database(home: &Path, trust: Option<&Path>) {
    let folder = home.join(".pki/nssdb");
    fs::create_dir_all(&folder).unwrap();
    let certutil = |args: &[&str]| {
        let mut command = Blocking::new("certutil");
        command.arg("-d").arg(format!("sql:{}", folder.display())).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    certutil(&["-N", "--empty-password"]);
    if let Some(trust) = trust {
        certutil(&["-A", "-n", "interception", "-t", "C,,", "-i", trust.to_str().unwrap()]);
    }
}
