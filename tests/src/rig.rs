//! A group whose proxyd intercepts TLS, and the nginx behind it.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sluice_testkit::{Ca, Curl, Daemon, Group, Leaf, Nginx, Port, Process, assert_eventually, curl};
use tokio::net::TcpStream;

/// A group whose proxyd intercepts, and whatever it takes.
pub struct Rig {
    /// Signs what clients are shown.
    pub ours: Ca,
    /// `None` once a test has taken it.
    pub certgend: Option<Daemon>,
    /// The proxy.
    pub proxyd: Daemon,
    /// The file with the certificate of `ours`.
    pub trust: PathBuf,
}

/// What differs between rigs.
#[derive(Default)]
pub struct Keys<'a> {
    /// More keys of the auditor.
    pub auditor: &'a str,
    /// Of the agent for certificates.
    pub agent: &'a str,
    /// Of the TLS client.
    pub client: &'a str,
    /// Of certgend.
    pub certgend: &'a str,
    /// Of the HTTP proxy.
    pub server: &'a str,
    /// Of the escaper.
    pub escaper: &'a str,
    /// More sections.
    pub sections: &'a str,
}

impl Rig {
    /// Trusts `upstreams` for upstreams.
    pub async fn start(upstreams: &Ca, keys: Keys<'_>) -> Self {
        Self::start_in(Self::group(upstreams, &keys)).await
    }

    /// With nginx under these names, which it trusts.
    pub async fn and_nginx(names: &[&str], keys: Keys<'_>) -> (Self, Nginx) {
        let ca = Ca::new();
        let nginx = nginx(&ca, names).await;
        (Self::start(&ca, keys).await, nginx)
    }

    /// Starts the daemons of a group.
    pub async fn start_in(group: Group) -> Self {
        let ours = Ca::named("Interception CA");
        group.write_file("mint.pem", ours.pem());
        private(&group.write_file("mint.key", ours.key_pem()));
        let certgend = group.daemon("certgend").start().await;
        let proxyd = group.proxyd().await;
        let trust = group.dir().join("mint.pem");
        Self {
            ours,
            certgend: Some(certgend),
            proxyd,
            trust,
        }
    }

    /// The group alone, with nothing started and no CA.
    pub fn group(upstreams: &Ca, keys: &Keys<'_>) -> Group {
        let Keys {
            auditor,
            agent,
            client,
            certgend,
            server,
            escaper,
            sections,
        } = keys;
        let group = Group::new(&format!(
            "resolver: [{{name: dns, type: deny_all}}]
escaper:
  - {{name: out, type: direct_fixed, resolver: dns, egress_network_filter: {{default: allow, allow: [127.0.0.0/8]}}, {escaper}}}
auditor:
  - name: audit
    tls_cert_agent: {{{agent}}}
    tls_interception_client: {{ca_certificate: '%dir%/ca.pem', no_default_ca_certificate: true, {client}}}
    {auditor}
server:
  - {{name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out, auditor: audit, {server}}}
  - {{name: socks, type: socks_proxy, listen: '127.0.0.1:%socks%', escaper: out, auditor: audit}}
certgend:
  backend: {{ca_certificate: '%dir%/mint.pem', ca_private_key: '%dir%/mint.key'}}
  {certgend}
runtime: {{thread_number: 1, server_offline_delay: 0s, task_wait_delay: 0s, task_wait_timeout: 10s, task_quit_timeout: 1s}}
{sections}"
        ));
        upstreams.write(group.dir());
        group
    }

    /// curl to `name` at nginx, through the proxy.
    pub fn curl(&self, name: &str, nginx: &Nginx, path: &str) -> Curl {
        self.untrusting(name, nginx, path).trust(&self.trust)
    }

    /// The same by a curl that does not know our CA.
    pub fn untrusting(&self, name: &str, nginx: &Nginx, path: &str) -> Curl {
        curl(&format!("https://{name}{path}"))
            .proxy(self.proxyd.addr("http"))
            .args(["--http1.1", "--connect-to"])
            .arg(format!("::{}", nginx.tls_addr()))
    }

    /// Intercept records of a type.
    pub fn intercepted(&self, kind: &str) -> Vec<Value> {
        let mut records = self.proxyd.log_records("Intercept");
        records.retain(|record| record["intercept_type"] == kind);
        records
    }

    /// The one handshake so far, once it is logged.
    pub async fn handshake(&self) -> Value {
        assert_eventually!(!self.intercepted("TlsHandshake").is_empty());
        let mut records = self.intercepted("TlsHandshake");
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    /// Stops the daemons, which must end cleanly.
    pub async fn stop(self) {
        self.proxyd.stop().await.assert_clean();
        if let Some(certgend) = self.certgend {
            certgend.stop().await.assert_clean();
        }
    }
}

/// Makes a file its owner's alone.
pub fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Runs `openssl` in a directory, which must succeed.
pub fn openssl(dir: &Path, args: &str) {
    let mut command = Command::new("openssl");
    command.args(args.split_ascii_whitespace()).current_dir(dir);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args}: {output:?}");
}

/// nginx under these names.
pub async fn nginx(ca: &Ca, names: &[&str]) -> Nginx {
    nginx_of(&ca.issue(names), "").await
}

/// nginx with this certificate and more directives, which tells in its answers how it was reached.
pub async fn nginx_of(leaf: &Leaf, directives: &str) -> Nginx {
    let telling = "add_header X-Connection $connection; add_header X-Resumed $ssl_session_reused; \
                   add_header X-Name $ssl_server_name; add_header X-Protocol $server_protocol;";
    Nginx::start_with(&format!("{telling}{directives}"), Some(leaf)).await
}

/// `openssl s_server` with the certificate in `NAME.pem`, the key in `NAME.key` of a folder, and more arguments.
pub async fn s_server(dir: &Path, name: &str, args: &[&str]) -> (Process, Port) {
    let port = Port::free();
    let mut server = tokio::process::Command::new("openssl");
    server
        .args([
            "s_server",
            "-cert",
            &format!("{name}.pem"),
            "-key",
            &format!("{name}.key"),
        ])
        .args(["-accept", &port.addr().to_string()])
        .args(args)
        .current_dir(dir);
    let server = Process::start("s_server", server, dir);
    assert_eventually!(TcpStream::connect(port.addr()).await.is_ok());
    (server, port)
}
