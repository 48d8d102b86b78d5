//! proxyd with ICAP services: icap-stub with rules for tests, and c-icap.

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a test fails by panicking"
)]

use std::{fs, io};

use sluice_testkit::{Answer, Conn, Daemon, Group, Origin, Patience, Port, Process, Wire};
use tokio::process::Command;

use crate::proxy;

/// Services of icap-stub for these tests.
pub const STUB: &str = r#"
icap_stub:
  listen: ["127.0.0.1:%icap%", "%dir%/icap.sock"]
  services:
    - {name: same}
    - {name: echo, rules: [{answer: echo}]}
    - {name: zero, preview: 0, rules: [{answer: echo}]}
    - {name: four, preview: 4, rules: [{answer: echo}]}
    - {name: whole, preview: none, allow_204: false}
    - name: edit
      answer_header: ["X-Rule: seven"]
      rules:
        - {vector: reqmod, path: /bad, answer: block, status: 451, page: "<p>no</p>"}
        - {vector: reqmod, path: /close, answer: close}
        - {vector: reqmod, path: /fail, answer: fail, status: 503}
        - {vector: reqmod, path: /host, answer: echo, set_header: "Host: other.test"}
        - {vector: reqmod, path: /slow, answer: echo, delay: 300ms}
        - {vector: respmod, path: /page, answer: block, status: 403, page: "<p>bad page</p>"}
        - {vector: respmod, path: /new, answer: echo, replace_body: "new body", set_header: "X-New: 1"}
        - {answer: echo, set_header: "X-Seen: yes"}
"#;

/// proxyd and icap-stub of one group.
pub struct Pair {
    /// The proxy.
    pub proxyd: Daemon,
    /// The ICAP server.
    pub stub: Daemon,
}

impl Pair {
    /// With these services, as in `reqmod: edit`, which stands for icap-stub's service of that name; `more` are more keys of each.
    pub async fn start(reqmod: Option<&str>, respmod: Option<&str>, more: &str) -> Self {
        let url = |name: &str| format!("icap://127.0.0.1:%icap%/{name}");
        let reqmod = reqmod.map(url);
        let respmod = respmod.map(url);
        let group = Group::new(&format!(
            "{}{STUB}",
            audited(reqmod.as_deref(), respmod.as_deref(), more)
        ));
        let stub = group.daemon("icap-stub").start().await;
        let proxyd = group.proxyd().await;
        Self { proxyd, stub }
    }

    /// Stops both, which must end cleanly.
    pub async fn stop(self) {
        self.proxyd.stop().await.assert_clean();
        self.stub.stop().await.assert_clean();
    }
}

/// A proxy whose auditor has these services.
pub fn audited(reqmod: Option<&str>, respmod: Option<&str>, more: &str) -> String {
    let mut yaml = format!("{}auditor:\n  - name: audit\n", proxy("auditor: audit", ""));
    for (key, url) in [("icap_reqmod_service", reqmod), ("icap_respmod_service", respmod)] {
        if let Some(url) = url {
            yaml += &format!("    {key}: {{url: '{url}', icap_connection_pool: {{min_idle_count: 0}}, {more}}}\n");
        }
    }
    yaml
}

/// An ICAP server that answers OPTIONS. `answer` does the rest: it is told the head of a request whose first encapsulated
/// head has been read.
pub fn server(answer: impl Fn(&mut Conn, &str) -> io::Result<()> + Send + Sync + 'static) -> Origin {
    Origin::script(move |conn| {
        while let Some(head) = conn.head()? {
            if head.starts_with("OPTIONS ") {
                conn.write(b"ICAP/1.0 200 OK\r\nISTag: a\r\nMethods: RESPMOD, REQMOD\r\nAllow: 204\r\n\r\n")?;
                continue;
            }
            conn.head()?;
            answer(conn, &head)?;
        }
        Ok(())
    })
}

/// A proxy whose services for both kinds of messages are one ICAP server that changes nothing, for the user `joe`; what it
/// says of requests, `X-Rule: seven`, it is told again of their responses.
pub async fn sharing() -> (Daemon, Origin) {
    let icap = server(|conn, head| {
        if head.starts_with("RESPMOD ") {
            let has_body = head.contains("res-body=");
            conn.until(if has_body { "0\r\n\r\n" } else { "\r\n\r\n" })?;
        }
        conn.write(b"ICAP/1.0 204 No\r\nX-Rule: seven\r\nISTag: a\r\n\r\n")
    });
    let url = format!("icap://joe:pw@{}/s", icap.addr());
    let yaml = audited(Some(&url), Some(&url), "").replacen(
        "min_idle_count: 0}",
        "min_idle_count: 0}, respond_shared_names: X-Rule",
        1,
    );
    (Daemon::proxyd(&yaml).start().await, icap)
}

/// c-icap with its echo service.
pub struct CIcap {
    port: Port,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl CIcap {
    /// Starts it.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("sluice-c-icap-").tempdir().unwrap();
        let port = Port::free();
        let at = dir.path().display();
        let modules = "/usr/lib/x86_64-linux-gnu/c_icap";
        let config = format!(
            "PidFile {at}/pid\nCommandsSocket {at}/ctl\nPort {}\nStartServers 1\nMaxServers 2\nThreadsPerChild 20\n\
             TmpDir {at}\nModulesDir {modules}\nServicesDir {modules}\nLoadMagicFile /etc/c-icap/c-icap.magic\n\
             acl all src 0.0.0.0/0.0.0.0\nicap_access allow all\nServerLog {at}/log\nAccessLog {at}/access\n\
             Service echo srv_echo.so\n",
            port.addr()
        );
        fs::write(dir.path().join("conf"), config).unwrap();
        let mut command = Command::new("c-icap");
        command.arg("-N").arg("-f").arg(dir.path().join("conf"));
        let process = Process::start("c-icap", command, dir.path());
        let mut patience = Patience::new();
        while tokio::net::TcpStream::connect(port.addr()).await.is_err() {
            assert!(patience.goes_on().await, "c-icap does not start\n{}", process.tail());
        }
        Self {
            port,
            _process: process,
            _dir: dir,
        }
    }

    /// Where its service is.
    pub fn url(&self) -> String {
        format!("icap://{}/echo", self.port.addr())
    }
}

/// Sends back the body of a request, by its length, and what it was asked for.
pub fn mirror() -> Origin {
    Origin::http(|request| {
        let seen = request.header("x-seen").unwrap_or("no");
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Method: {} {}\r\nX-Origin-Saw: {seen}\r\n\r\n",
            request.body.len(),
            request.method(),
            request.target()
        );
        [head.as_bytes(), &request.body].concat()
    })
}

/// What a POST to an origin is answered, with these lines about its body.
pub async fn post(wire: &mut Wire, origin: &Origin, framing: &str, body: &[u8]) -> Answer {
    let head = format!(
        "POST http://{0}/a HTTP/1.1\r\nHost: {0}\r\n{framing}\r\n",
        origin.addr()
    );
    wire.send([head.as_bytes(), body].concat()).await;
    wire.answer().await
}
