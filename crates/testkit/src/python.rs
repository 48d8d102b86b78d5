//! Python programs: httpbin, and clients in a few lines.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

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
