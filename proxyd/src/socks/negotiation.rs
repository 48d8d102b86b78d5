//! From a client's first byte to its request (RFC 1928 §3 to §6, RFC 1929).

use std::convert::Infallible;
use std::fmt::Display;
use std::future::poll_fn;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use sluice_addr::Upstream;
use sluice_socks::v5::{Method, ReplyCode};
use sluice_socks::{Version, v4, v5};
use sluice_telemetry::debug;

use super::reply;
use crate::client::{Client, Fill};
use crate::server::socks_proxy::SocksProxy;
use crate::user::{Gate, Login, LoginError};
use crate::worker::Worker;

/// What a client asks for.
pub(crate) struct Request {
    pub(crate) version: Version,
    pub(crate) command: Command,
    pub(crate) target: Upstream,
    /// The user, where the server has users.
    pub(crate) login: Option<Login>,
}

/// What is to be done with the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Bind,
    Connect,
    UdpAssociate,
}

/// Brings a client to its request by `deadline`. `None`: there is none; what there was to say has been said, and the
/// connection is closed.
pub(crate) async fn run(
    server: &SocksProxy,
    mut client: Client,
    deadline: Instant,
    worker: &Worker,
) -> Option<(Client, Request)> {
    client.timer.arm(deadline.saturating_duration_since(Instant::now()));
    let mut talk = Negotiation {
        server,
        client: &mut client,
        deadline,
        worker,
        refused: false,
    };
    let (request, refused) = (talk.request().await, talk.refused);
    match request {
        Some(request) => Some((client, request)),
        None => {
            if refused {
                client.close().await;
            }
            None
        }
    }
}

struct Negotiation<'a> {
    server: &'a SocksProxy,
    client: &'a mut Client,
    deadline: Instant,
    worker: &'a Worker,
    /// The client has been told that nothing comes of it, and may still be sending.
    refused: bool,
}

/// How a SOCKS5 client makes itself known.
enum Introduction {
    /// Not at all, and it need not.
    None,
    /// By a name.
    Credentials,
    /// As nobody in particular, which the group allows.
    Anonymous,
}

impl Introduction {
    fn method(&self) -> Method {
        match self {
            Self::None | Self::Anonymous => Method::NoAuth,
            Self::Credentials => Method::UserPassword,
        }
    }
}

impl Negotiation<'_> {
    async fn request(&mut self) -> Option<Request> {
        // The version belongs to the message that begins with it.
        let first = self
            .take(|buf| Ok::<_, Infallible>(buf.first().map(|&byte| (byte, 0))))
            .await;
        let first = first.unwrap_or_else(|never| match never {})?;
        match Version::of(first) {
            Some(Version::V4) => self.v4().await,
            Some(Version::V5) => self.v5().await,
            None => self.fail(&format_args!("{first:#04x} is no version of SOCKS")),
        }
    }

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
                self.refuse(|out| v4::Reply::new(v4::ReplyCode::Rejected).put(out))
                    .await;
                return self.fail(&error);
            }
        };
        let login = match &self.server.gate {
            None => None,
            // A user id is no credential.
            Some(gate) => match gate.anonymous(self.client_ip()) {
                Ok(login) => Some(login),
                Err(error) => return self.fail(&error),
            },
        };
        Some(Request {
            version: Version::V4,
            command: match command {
                v4::Command::Bind => Command::Bind,
                v4::Command::Connect => Command::Connect,
            },
            target,
            login,
        })
    }

    async fn v5(&mut self) -> Option<Request> {
        let offered = self
            .take(|buf| {
                let parsed = v5::parse_greeting(buf)?;
                let offers = |(greeting, len): (v5::Greeting<'_>, usize)| {
                    let offers = [Method::NoAuth, Method::UserPassword].map(|method| greeting.offers(method));
                    (offers, len)
                };
                Ok::<_, v5::GreetingError>(parsed.map(offers))
            })
            .await;
        let [no_auth, password] = match offered {
            Ok(offered) => offered?,
            Err(error) => return self.fail(&error),
        };
        let introduction = match &self.server.gate {
            None => no_auth.then_some(Introduction::None),
            Some(_) if password => Some(Introduction::Credentials),
            Some(gate) if no_auth && gate.admits_anonymous(self.client_ip()) => Some(Introduction::Anonymous),
            Some(_) => None,
        };
        let method = introduction.as_ref().map(Introduction::method);
        self.send(|out| v5::put_choice(method, out)).await?;
        self.refused = method.is_none();
        let login = match (introduction, &self.server.gate) {
            (Some(Introduction::None), _) | (Some(_), None) => None,
            (Some(Introduction::Anonymous), Some(gate)) => Some(gate.anonymous(self.client_ip())),
            (Some(Introduction::Credentials), Some(gate)) => Some(self.credentials(gate).await?),
            (None, gate) => {
                if let Some(gate) = gate {
                    gate.refuse_stranger(self.client_ip());
                }
                return self.fail(&"no method of authentication that the server takes");
            }
        };
        match self.take(v5::parse_request).await {
            Ok(request) => {
                let request = request?;
                let login = match login {
                    None => None,
                    Some(Ok(login)) => Some(login),
                    Some(Err(error)) => {
                        if let LoginError::Blocked { delay } = error {
                            self.hold(delay).await;
                        }
                        self.refuse(|out| v5::Reply::refused(ReplyCode::NotAllowed).put(out))
                            .await;
                        return self.fail(&error);
                    }
                };
                Some(Request {
                    version: Version::V5,
                    command: match request.command {
                        v5::Command::Bind => Command::Bind,
                        v5::Command::Connect => Command::Connect,
                        v5::Command::UdpAssociate => Command::UdpAssociate,
                    },
                    target: request.target,
                    login,
                })
            }
            Err(error) => {
                if let Some(code) = error.reply() {
                    self.refuse(|out| v5::Reply::refused(code).put(out)).await;
                }
                self.fail(&error)
            }
        }
    }

    /// Takes name and password, and answers them. `None`: the client is nobody, and has been told so. A user who is
    /// blocked hears that as the answer to its request.
    async fn credentials(&mut self, gate: &Gate) -> Option<Result<Login, LoginError>> {
        let given = self
            .take(|buf| {
                let parsed = v5::parse_credentials(buf)?;
                let own = |(given, len): (v5::Credentials<'_>, usize)| {
                    let given = (given.user.to_owned(), given.password.to_owned());
                    (given, len)
                };
                Ok::<_, v5::CredentialsError>(parsed.map(own))
            })
            .await;
        let client = self.client_ip();
        let login = match given {
            Ok(given) => {
                let (user, password) = given?;
                gate.login(&self.worker.passwords, &user, &password, client).await
            }
            Err(_) => gate.malformed(client),
        };
        let is_known = matches!(login, Ok(_) | Err(LoginError::Blocked { .. } | LoginError::Params(_)));
        self.send(|out| v5::put_status(is_known, out)).await?;
        self.refused = !is_known;
        match login {
            Err(error) if !is_known => self.fail(&error),
            login => Some(login),
        }
    }

    /// Lets the client of a blocked user wait.
    async fn hold(&mut self, delay: Duration) {
        self.client.timer.arm(delay);
        tokio::select! {
            () = poll_fn(|cx| self.client.timer.poll_fired(cx)) => {}
            () = self.worker.tasks.stopping() => {}
        }
        // The answer still has its time.
        self.deadline = self.deadline.max(Instant::now() + Duration::from_secs(1));
    }

    fn client_ip(&self) -> IpAddr {
        self.client.peers.client.ip()
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

    /// Sends what ends the negotiation.
    async fn refuse(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        self.refused = self.send(put).await.is_some();
    }

    /// Says in the process log why there is no request.
    fn fail<T>(&self, why: &dyn Display) -> Option<T> {
        debug!("a SOCKS negotiation failed"; "server" => &*self.server.common.name,
            "client" => %self.client.peers.client, "error" => %why);
        None
    }
}
