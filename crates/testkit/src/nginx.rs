//! nginx.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::eventually::Patience;
use crate::ports::Port;
use crate::process::Process;

/// nginx in a folder of its own, serving the files in its `www`.
#[derive(Debug)]
pub struct Nginx {
    port: Port,
    proxy_protocol: Port,
    tls: Option<Port>,
    process: Process,
    dir: TempDir,
}

impl Nginx {
    /// Serves plain HTTP; `/hello.txt` is `hello\n`.
    pub async fn start() -> Self {
        Self::start_with("", None).await
    }

    /// Serves HTTPS, too, with this certificate, as HTTP/1.1 and h2.
    pub async fn start_tls(leaf: &crate::Leaf) -> Self {
        Self::start_with("", Some(leaf)).await
    }

    /// Serves with more directives in its `server`.
    pub async fn start_with(directives: &str, leaf: Option<&crate::Leaf>) -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-nginx-").tempdir().unwrap();
        let (port, proxy_protocol, tls) = (Port::free(), Port::free(), leaf.map(|_| Port::free()));
        let mut listen = format!(
            "listen 127.0.0.1:{}; listen 127.0.0.1:{} proxy_protocol;",
            port.number(),
            proxy_protocol.number()
        );
        if let (Some(leaf), Some(tls)) = (leaf, &tls) {
            leaf.write(dir.path(), "server");
            listen += &format!(
                "listen 127.0.0.1:{} ssl http2; ssl_certificate server.pem; ssl_certificate_key server.key;",
                tls.number()
            );
        }
        fs::create_dir(dir.path().join("www")).unwrap();
        fs::write(dir.path().join("www/hello.txt"), "hello\n").unwrap();
        fs::write(dir.path().join("nginx.conf"), configuration(&listen, directives)).unwrap();
        let mut command = Command::new("nginx");
        // Not in everybody's path.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
        command
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf", "-e", "stderr"]);
        let mut process = Process::start("nginx", command, dir.path());
        let mut patience = Patience::new();
        while TcpStream::connect(port.addr()).await.is_err() {
            assert!(
                process.ended().is_none() && patience.goes_on().await,
                "nginx does not start\n{}",
                process.tail()
            );
        }
        Self {
            port,
            proxy_protocol,
            tls,
            process,
            dir,
        }
    }

    /// Where it serves plain HTTP.
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// Where it serves plain HTTP to those who send a PROXY protocol header first, and nobody else.
    pub fn proxy_protocol_addr(&self) -> SocketAddr {
        self.proxy_protocol.addr()
    }

    /// Where it serves HTTPS.
    pub fn tls_addr(&self) -> SocketAddr {
        self.tls.as_ref().expect("started with a certificate").addr()
    }

    /// The folder whose files it serves.
    pub fn www(&self) -> std::path::PathBuf {
        self.dir.path().join("www")
    }

    /// Writes a file to serve.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        fs::write(self.www().join(name), bytes).unwrap();
    }

    /// Lines of its access log: method, target, version, status and bytes sent, as in `GET /x HTTP/1.1 200 6`.
    pub fn access(&self) -> Vec<String> {
        self.process.stdout().lines().map(str::to_owned).collect()
    }
}

/// One process that drops no rights, so that it may read its folder whoever runs the test.
fn configuration(listen: &str, directives: &str) -> String {
    format!(
        "daemon off;
master_process off;
pid nginx.pid;
worker_rlimit_nofile 4096;
events {{ worker_connections 1024; }}
http {{
    types {{ text/plain txt; text/html html; application/json json; }}
    default_type application/octet-stream;
    log_format brief '$request $status $body_bytes_sent';
    access_log /dev/stdout brief;
    client_body_temp_path client; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    client_max_body_size 0;
    dav_access user:rw;
    server {{
        {listen}
        root www;
        location /put/ {{ root .; dav_methods PUT DELETE; create_full_put_path on; }}
        {directives}
    }}
}}
"
    )
}
