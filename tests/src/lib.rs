//! What the end-to-end tests in `tests/` have in common: the configuration of a forward proxy, bodies, a gate.

pub mod browser;
pub mod captures;
pub mod icap;
pub mod inspect;
pub mod minting;
pub mod rig;
pub mod udp;
pub mod users;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

/// An `http_proxy` on the port named `http` and a `direct_fixed` that may connect to loopback, where all peers of the
/// tests are. `server` and `escaper` are more keys of theirs, as in a YAML flow map: `a: 1, b: [2]`.
///
/// No name is resolved: it does not exist if a resolverd of the same group runs, else it is waited for in vain.
/// See [`resolving_proxy`].
pub fn proxy(server: &str, escaper: &str) -> String {
    let resolver = "{name: dns, type: deny_all}";
    config(resolver, server, &format!("{LOOPBACK}, {escaper}"))
}

/// As [`proxy`], with names looked up at `dns`, if a resolverd of the same group runs.
pub fn resolving_proxy(dns: SocketAddr, server: &str, escaper: &str) -> String {
    config(&hickory(dns), server, &format!("{LOOPBACK}, {escaper}"))
}

/// As [`proxy`], with nothing in the escaper but these keys: loopback is forbidden unless they allow it.
pub fn guarded_proxy(server: &str, escaper: &str) -> String {
    config("{name: dns, type: deny_all}", server, escaper)
}

/// A group with these servers and the escaper `out`, which may connect to loopback; no name is resolved.
pub fn config_with(servers: &str) -> String {
    group("{name: dns, type: deny_all}", LOOPBACK, servers)
}

/// As [`config_with`], with names looked up at `dns`, if a resolverd of the same group runs.
pub fn resolving_with(dns: SocketAddr, servers: &str) -> String {
    group(&hickory(dns), LOOPBACK, servers)
}

/// One worker, so that all clients meet at one pool of upstream connections; and no waiting at a stop.
const RUNTIME: &str = "runtime: {thread_number: 1, server_offline_delay: 0s, task_wait_delay: 0s, \
                       task_wait_timeout: 10s, task_quit_timeout: 1s}";

const LOOPBACK: &str = "egress_network_filter: {default: allow, allow: [127.0.0.0/8, '::1']}";

fn config(resolver: &str, server: &str, escaper: &str) -> String {
    let server = format!("  - {{name: http, type: http_proxy, listen: '127.0.0.1:%http%', escaper: out, {server}}}");
    group(resolver, escaper, &server)
}

fn hickory(dns: SocketAddr) -> String {
    format!(
        "{{name: dns, type: hickory, server: {}, server_port: {}}}",
        dns.ip(),
        dns.port()
    )
}

fn group(resolver: &str, escaper: &str, servers: &str) -> String {
    format!(
        "resolver:
  - {resolver}
escaper:
  - {{name: out, type: direct_fixed, resolver: dns, {escaper}}}
server:
{servers}
{RUNTIME}
"
    )
}

/// The records of finished tasks.
pub fn finished(daemon: &sluice_testkit::Daemon) -> Vec<Value> {
    let mut records = daemon.log_records("Task");
    records.retain(|record| record["task_event"] == "Finished");
    records
}

/// Bytes without a pattern, the same for the same length.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// `body` in chunks of `size` bytes, with these trailer lines.
pub fn chunked(body: &[u8], size: usize, trailers: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / size * 16 + 64);
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// Holds up the script of an origin until the test lets it go on.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everybody pass, from now on.
    pub fn open(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    ///
    /// # Errors
    /// `TimedOut` after twenty seconds.
    pub fn pass(&self) -> io::Result<()> {
        let open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, _) = self
            .0
            .1
            .wait_timeout_while(open, Duration::from_secs(20), |open| !*open)
            .unwrap_or_else(PoisonError::into_inner);
        if *open {
            Ok(())
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

/// An address on loopback where packets that ask for a connection are dropped.
#[derive(Debug)]
pub struct BlackHole {
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl BlackHole {
    /// One on this address, such as `127.0.0.1:0`.
    ///
    /// # Panics
    /// If the address cannot be listened on.
    pub fn on(addr: &str) -> Self {
        let listener = TcpListener::bind(addr).expect("a free port");
        // The shortest queue of connections that nobody accepts; the kernel drops what comes once it is full.
        rustix::net::listen(&listener, 0).expect("a listening socket may listen anew");
        let addr = listener.local_addr().expect("a bound socket has an address");
        let queued = std::iter::from_fn(|| TcpStream::connect_timeout(&addr, Duration::from_millis(200)).ok());
        let queued = queued.take(16).collect();
        Self {
            listener,
            _queued: queued,
        }
    }

    /// The address.
    ///
    /// # Panics
    /// Never: a listening socket has one.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket has an address")
    }
}

/// An address on loopback where nobody listens.
///
/// # Panics
/// If no port is free.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}
