//! dnsmasq with given records.

use std::net::SocketAddr;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::eventually::Patience;
use crate::ports::Port;
use crate::process::Process;

/// A DNS server on loopback, over UDP and TCP, that knows what it is told, and asks nobody. Names under `test.` that it
/// does not know do not exist; it refuses all others.
#[derive(Debug)]
pub struct Dnsmasq {
    port: Port,
    args: Vec<String>,
    process: Option<Process>,
    dir: TempDir,
}

impl Dnsmasq {
    /// One without records, not yet started.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-dns-").tempdir().unwrap();
        Self {
            port: Port::free(),
            args: vec!["--local=/test/".to_owned()],
            process: None,
            dir,
        }
    }

    /// Gives a name these addresses.
    #[must_use]
    pub fn host(self, name: &str, addresses: &[&str]) -> Self {
        // A host record holds one address of each family; more need more records.
        addresses
            .iter()
            .fold(self, |dns, address| dns.arg(&format!("--host-record={name},{address}")))
    }

    /// Makes a name the alias of another one that is known here.
    #[must_use]
    pub fn alias(self, name: &str, target: &str) -> Self {
        self.arg(&format!("--cname={name},{target}"))
    }

    /// Gives all names under a domain, and itself, an address.
    #[must_use]
    pub fn domain(self, domain: &str, address: &str) -> Self {
        self.arg(&format!("--address=/{domain}/{address}"))
    }

    /// Lets answers live so many seconds; 60 if this is not called.
    #[must_use]
    pub fn ttl(self, seconds: u32) -> Self {
        self.arg(&format!("--local-ttl={seconds}"))
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it.
    pub async fn start(mut self) -> Self {
        self.restart().await;
        self
    }

    /// Kills it, as if the server had died.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again with the same port and records.
    pub async fn restart(&mut self) {
        self.kill().await;
        let mut command = Command::new("dnsmasq");
        command
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--no-poll",
            ])
            .args([
                "--bind-interfaces",
                "--listen-address=127.0.0.1",
                "--except-interface=nosuch",
                "--pid-file=",
            ])
            .args(["--log-queries", "--log-facility=-", "--no-ping", "--user="])
            .arg(format!("--port={}", self.port.number()));
        if !self.args.iter().any(|arg| arg.starts_with("--local-ttl")) {
            command.arg("--local-ttl=60");
        }
        command.args(&self.args);
        let mut process = Process::start("dnsmasq", command, self.dir.path());
        let mut patience = Patience::new();
        while TcpStream::connect(self.addr()).await.is_err() {
            assert!(
                process.ended().is_none() && patience.goes_on().await,
                "dnsmasq does not start\n{}",
                process.tail()
            );
        }
        self.process = Some(process);
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// How often it was asked for a name, of any type.
    pub fn queries(&self, name: &str) -> usize {
        self.query_types(name).len()
    }

    /// The types that it was asked for of a name, in the order of the questions.
    pub fn query_types(&self, name: &str) -> Vec<String> {
        let log = self.process.as_ref().map(Process::stderr).unwrap_or_default();
        let asked = format!("] {name} from ");
        log.lines()
            .filter(|line| line.contains(&asked))
            .filter_map(|line| line.split_once("query[")?.1.split_once(']'))
            .map(|(kind, _)| kind.to_owned())
            .collect()
    }
}

impl Default for Dnsmasq {
    fn default() -> Self {
        Self::new()
    }
}
