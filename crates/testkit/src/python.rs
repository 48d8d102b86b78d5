//! Python programs: httpbin, applications under hypercorn, and clients in a few lines.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::ca::Leaf;
use crate::eventually::Patience;
use crate::ports::Port;
use crate::process::{Exited, Process, run};

/// httpbin under gunicorn.
#[derive(Debug)]
pub struct Httpbin {
    port: Port,
    _process: Process,
    _dir: TempDir,
}

impl Httpbin {
    /// Starts it; the PyPI packages `httpbin` and `gunicorn` must be there.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-httpbin-").tempdir().unwrap();
        let port = Port::free();
        let mut command = Command::new("python3");
        command.args(["-m", "gunicorn", "httpbin:app", "--threads", "8", "--keep-alive", "60"]);
        command
            .arg("-b")
            .arg(port.addr().to_string())
            .arg("--worker-tmp-dir")
            .arg(dir.path());
        let mut process = Process::start("httpbin", command, dir.path());
        let mut patience = Patience::of(std::time::Duration::from_secs(40));
        while TcpStream::connect(port.addr()).await.is_err() {
            assert!(
                process.ended().is_none() && patience.goes_on().await,
                "httpbin does not start\n{}",
                process.tail()
            );
        }
        Self {
            port,
            _process: process,
            _dir: dir,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }
}

/// An ASGI application under hypercorn, which speaks HTTP/1.1, HTTP/2, and WebSocket over both.
#[derive(Debug)]
pub struct Hypercorn {
    port: Port,
    process: Process,
    _dir: TempDir,
}

impl Hypercorn {
    /// Serves `app` of this module, given as text, over TLS with this certificate; the PyPI package `hypercorn` must
    /// be there.
    pub async fn start(module: &str, leaf: &Leaf) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-hypercorn-").tempdir().unwrap();
        let port = Port::free();
        fs::write(dir.path().join("site_under_test.py"), module).unwrap();
        leaf.write(dir.path(), "server");
        let mut command = Command::new("python3");
        command
            .args([
                "-m",
                "hypercorn",
                "site_under_test:app",
                "--certfile",
                "server.pem",
                "--keyfile",
                "server.key",
            ])
            .args(["--access-logfile", "-", "--access-logformat", "%(r)s %(s)s"])
            .args(["--websocket-ping-interval", "3600"])
            .arg("-b")
            .arg(port.addr().to_string())
            .current_dir(dir.path());
        let mut process = Process::start("hypercorn", command, dir.path());
        let mut patience = Patience::of(std::time::Duration::from_secs(40));
        while TcpStream::connect(port.addr()).await.is_err() {
            assert!(
                process.ended().is_none() && patience.goes_on().await,
                "hypercorn does not start\n{}",
                process.tail()
            );
        }
        Self {
            port,
            process,
            _dir: dir,
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Lines of its access log: method, target, version and status, as in `GET /x 2 200`.
    pub fn access(&self) -> Vec<String> {
        self.process.stdout().lines().map(str::to_owned).collect()
    }
}

/// Runs a Python program, given as text, with arguments.
pub async fn python(program: &str, args: &[&str]) -> Exited {
    let mut command = Command::new("python3");
    command.args(["-c", program]).args(args);
    for name in [
        "http_proxy",
        "https_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    run(command).await
}
