//! From a client's first byte to its request (RFC 1928 §3 to §6, RFC 1929).

use std::convert::Infallible;
use std::fmt::Display;
use std::time::{Duration, Instant};

use sluice_addr::Upstream;
use sluice_socks::v5::{Method, ReplyCode};
use sluice_socks::{Version, v4, v5};
use sluice_telemetry::debug;

use super::reply;
use crate::client::{Client, Fill};
use crate::server::socks_proxy::SocksProxy;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) version: Version,
    pub(crate) command: Command,
    pub(crate) target: Upstream,
}

/// What is to be done with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Bind,
    Connect,
    UdpAssociate,
}

/// Brings a client to its request by `deadline`. `None`: there is none, and the connection may close without a word; what
/// there was to say has been said.
pub(crate) async fn run(server: &SocksProxy, client: &mut Client, deadline: Instant) -> Option<Request> {
    client.timer.arm(deadline.saturating_duration_since(Instant::now()));
    let mut talk = Negotiation {
        server,
        client,
        deadline,
    };
    // The version belongs to the message that begins with it.
    let first = talk
        .take(|buf| Ok::<_, Infallible>(buf.first().map(|&byte| (byte, 0))))
        .await;
    let first = first.unwrap_or_else(|never| match never {})?;
    match Version::of(first) {
        Some(Version::V4) => talk.v4().await,
        Some(Version::V5) => talk.v5().await,
        None => talk.fail(&format_args!("{first:#04x} is no version of SOCKS")),
    }
}

struct Negotiation<'a> {
    server: &'a SocksProxy,
    client: &'a mut Client,
    deadline: Instant,
}

impl Negotiation<'_> {
    async fn v4(&mut self) -> Option<Request> {
        let request = self
            .take(|buf| {
                let parsed = v4::parse_request(buf)?;
                Ok::<_, v4::RequestError>(parsed.map(|(request, len)| ((request.command, request.target), len)))
            })
            .await;
        let (command, target) = match request {
            Ok(request) => request?,
            Err(error) => {
                self.send(|out| v4::Reply::new(v4::ReplyCode::Rejected).put(out)).await;
                return self.fail(&error);
            }
        };
        Some(Request {
            version: Version::V4,
            command: match command {
                v4::Command::Bind => Command::Bind,
                v4::Command::Connect => Command::Connect,
            },
            target,
        })
    }

    async fn v5(&mut self) -> Option<Request> {
        let no_auth = self
            .take(|buf| {
                let parsed = v5::parse_greeting(buf)?;
                Ok::<_, v5::GreetingError>(parsed.map(|(greeting, len)| (greeting.offers(Method::NoAuth), len)))
            })
            .await;
        let no_auth = match no_auth {
            Ok(no_auth) => no_auth?,
            Err(error) => return self.fail(&error),
        };
        let method = no_auth.then_some(Method::NoAuth);
        self.send(|out| v5::put_choice(method, out)).await?;
        if method.is_none() {
            return self.fail(&"no method of authentication that the server takes");
        }
        match self.take(v5::parse_request).await {
            Ok(request) => {
                let request = request?;
                Some(Request {
                    version: Version::V5,
                    command: match request.command {
                        v5::Command::Bind => Command::Bind,
                        v5::Command::Connect => Command::Connect,
                        v5::Command::UdpAssociate => Command::UdpAssociate,
                    },
                    target: request.target,
                })
            }
            Err(error) => {
                if let Some(code) = error.reply() {
                    self.refuse(code).await;
                }
                self.fail(&error)
            }
        }
    }

    /// Waits until `parse` makes a message of what the client has sent, and takes it. `None`: the client is gone, or too
    /// slow.
    async fn take<T, E>(&mut self, parse: impl Fn(&[u8]) -> Result<Option<(T, usize)>, E>) -> Result<Option<T>, E> {
        loop {
            if let Some((message, len)) = parse(self.client.buf.filled())? {
                self.client.buf.consume(len);
                self.server.common.stats.mine().tcp_in.add(len as u64);
                return Ok(Some(message));
            }
            match self.client.fill().await {
                Fill::Bytes => {}
                Fill::Closed | Fill::Failed(_) => return Ok(None),
                Fill::TimedOut => {
                    self.server.common.stats.mine().timed_out.add(1);
                    return Ok(self.fail(&"the negotiation takes too long"));
                }
            }
        }
    }

    async fn send(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Option<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        reply::send(self.server, self.client, left.max(Duration::from_millis(1)), put)
            .await
            .ok()
    }

    async fn refuse(&mut self, code: ReplyCode) {
        self.send(|out| v5::Reply::refused(code).put(out)).await;
    }

    /// Says in the process log why there is no request.
    fn fail<T>(&self, why: &dyn Display) -> Option<T> {
        debug!("a SOCKS negotiation failed"; "server" => &*self.server.common.name,
            "client" => %self.client.peers.client, "error" => %why);
        None
    }
}
