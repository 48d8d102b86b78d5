//! What a request head asks for, and the head that goes on.
//!
//! Everything that is needed later is copied out here, in one look at the head, so that the read buffer is free again.

use std::time::{Duration, Instant};

use percent_encoding::percent_decode_str;
use sluice_addr::{Host, Upstream};
use sluice_http1::{
    Absolute, Authority, Awaits, Connection, ForwardRequest, HostLine, Method, Redacted, RequestHead, Scheme, Target,
    TargetLine, Version,
};
use sluice_io::buffer;

use crate::error::TaskError;
use crate::http::auth::Unauthorized;
use crate::http::exchange::{self, binds_connection};
use crate::record::ForwardNotes;
use crate::server::http_proxy::HttpProxy;
use crate::user::{Login, LoginError, Permit, RequestKind};

/// What is to be done for a request.
pub(crate) enum Plan {
    Connect(Tunnel),
    Forward(Forward),
    Refuse(Refusal),
    Unauthorized(Box<Unauthorized>),
}

/// A request that gets an answer of our own and ends the connection.
pub(crate) struct Refusal {
    pub(crate) error: TaskError,
    pub(crate) head_only: bool,
    /// It is known who the client is.
    pub(crate) authenticated: bool,
}

/// CONNECT.
pub(crate) struct Tunnel {
    pub(crate) upstream: Upstream,
    pub(crate) path_index: Option<u64>,
    /// Bytes of the request's head.
    pub(crate) received: u64,
    pub(crate) keep_alive: bool,
    pub(crate) permit: Option<Permit>,
}

/// A request for an origin.
pub(crate) struct Forward {
    pub(crate) upstream: Upstream,
    /// The origin is spoken to over TLS.
    pub(crate) tls: bool,
    pub(crate) message: exchange::Request,
    /// Sending it twice does what sending it once does (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
    pub(crate) path_index: Option<u64>,
    /// Bytes of the head as received.
    pub(crate) received: u64,
    /// How long the upstream connection waits for another request; `None`: it is not kept.
    pub(crate) upstream_keepalive: Option<Duration>,
    pub(crate) permit: Option<Permit>,
    pub(crate) notes: Option<Box<ForwardNotes>>,
}

impl Forward {
    /// Whether the request may be sent once more (RFC 9110 §9.2.2: not unless it is idempotent).
    pub(crate) fn is_repeatable(&self) -> bool {
        self.idempotent && self.message.framing.is_empty()
    }

    /// Whether the client's connection can go on after a reply of our own.
    pub(crate) fn may_persist(&self) -> Persist {
        Persist {
            keep_alive: self.message.keep_alive && self.message.framing.is_empty(),
            http11: self.message.http11,
            head_only: self.message.awaits == Awaits::Head,
        }
    }
}

/// How a client can be replied to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Persist {
    pub(crate) keep_alive: bool,
    pub(crate) http11: bool,
    pub(crate) head_only: bool,
}

/// Makes a plan for a request of this user, if the server has users.
pub(crate) fn make(
    server: &HttpProxy,
    head: &mut RequestHead<'_>,
    received: Instant,
    login: Option<&mut Login>,
) -> Plan {
    let head_only = head.method == Method::Head;
    let authenticated = login.is_some();
    let planner = Planner {
        server,
        received,
        login,
    };
    planner.plan(head).unwrap_or_else(|error| {
        Plan::Refuse(Refusal {
            error,
            head_only,
            authenticated,
        })
    })
}

impl Plan {
    /// For a request that cannot even be read.
    pub(crate) fn refuse_early(error: TaskError) -> Self {
        Self::Refuse(Refusal {
            error,
            head_only: false,
            authenticated: false,
        })
    }

    /// For a request whose sender is nobody.
    pub(crate) fn unauthorized(head: &RequestHead<'_>, error: LoginError) -> Self {
        Self::Unauthorized(Box::new(Unauthorized {
            error,
            gave_credentials: head.proxy_authorization.is_some(),
            framing: head.framing,
            expect_continue: head.expect_continue,
            is_connect: head.method == Method::Connect,
            head_only: head.method == Method::Head,
            keep_alive: head.keep_alive,
            http11: head.version == Version::Http11,
            received: head.len as u64,
        }))
    }
}

struct Planner<'a> {
    server: &'a HttpProxy,
    received: Instant,
    login: Option<&'a mut Login>,
}

impl Planner<'_> {
    fn plan(mut self, head: &mut RequestHead<'_>) -> Result<Plan, TaskError> {
        match head.target()? {
            Target::Authority(authority) => self.connect(head, &authority),
            Target::Absolute(url) if !self.is_local(head) => self.forward(head, &url, false),
            Target::Absolute(url) => self.local(head, url.path),
            Target::Origin(path) if self.server.options.local_names.is_empty() || self.is_local(head) => {
                self.local(head, path)
            }
            Target::Asterisk => Err(TaskError::Unimplemented("a request for the proxy itself")),
            Target::Origin(_) => Err(TaskError::NoUpstream),
        }
    }

    /// Whether a request is for a name of our own (client-protocol.md §1).
    fn is_local(&self, head: &RequestHead<'_>) -> bool {
        let names = &self.server.options.local_names;
        !names.is_empty()
            && head
                .host_authority()
                .is_some_and(|host| Host::parse(host.host).is_ok_and(|host| names.contains(&host)))
    }

    fn connect(&mut self, head: &mut RequestHead<'_>, authority: &Authority<'_>) -> Result<Plan, TaskError> {
        let upstream = upstream(authority, 443)?;
        let permit = self.admit(RequestKind::HttpConnect, &upstream, head)?;
        if !head.framing.is_empty() {
            return Err(TaskError::Unimplemented("CONNECT with a body"));
        }
        Ok(Plan::Connect(Tunnel {
            upstream,
            path_index: self.path_index(head)?,
            received: head.len as u64,
            keep_alive: head.keep_alive,
            permit,
        }))
    }

    fn forward(
        &mut self,
        head: &mut RequestHead<'_>,
        url: &Absolute<'_>,
        replace_host: bool,
    ) -> Result<Plan, TaskError> {
        let options = &self.server.options;
        let tls = match url.scheme {
            Scheme::Http => false,
            Scheme::Https => true,
            Scheme::Ftp => return Err(TaskError::Unimplemented("FTP over HTTP")),
        };
        let upstream = upstream(&url.authority, url.scheme.default_port())?;
        let kind = if tls {
            RequestKind::HttpsForward
        } else {
            RequestKind::HttpForward
        };
        let permit = self.admit(kind, &upstream, head)?;
        if !options.allow_custom_host
            && let Some(host) = head.host_authority()
            && Host::parse(host.host).is_ok_and(|host| host != upstream.host)
        {
            return Err(TaskError::HostMismatch);
        }
        let path_index = self.path_index(head)?;
        if options.steal_forwarded_for {
            head.remove("forwarded");
            head.remove("x-forwarded-for");
        }
        let binds =
            head.authorization.is_some_and(binds_connection) || head.proxy_authorization.is_some_and(binds_connection);
        // Only what is known to leave HTTP cleanly is passed on; `h2c` would carry requests past this proxy.
        let upgrade = head
            .upgrade
            .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
            && head.framing.is_empty();
        let user = permit.as_ref().map(|permit| permit.user.config.http_upstream_keepalive);
        let keepalive = user.map_or(options.upstream_keepalive, |user| options.upstream_keepalive.and(user));
        let upstream_keepalive = keepalive.enable.then_some(keepalive.idle_expire.0);
        let default_port = url.scheme.default_port();
        let host = match head.host {
            Some(host) if !host.is_empty() && !replace_host => {
                if options.drop_default_port {
                    HostLine::WithoutPort(default_port)
                } else {
                    HostLine::AsSent
                }
            }
            _ if options.drop_default_port => HostLine::Replace(url.authority.without_port(default_port)),
            _ => HostLine::Replace(url.authority.text),
        };
        let how = ForwardRequest {
            target: TargetLine::Origin(url),
            host,
            connection: match (upgrade, upstream_keepalive) {
                (true, _) => Connection::Upgrade,
                (false, Some(_)) => Connection::Implied,
                (false, None) => Connection::Close,
            },
            extra: b"",
        };
        let mut out = buffer::take();
        head.forward(&how, &mut out);
        let notes = self
            .server
            .common
            .task_log
            .enabled()
            .then(|| self.notes(head, permit.as_ref()));
        Ok(Plan::Forward(Forward {
            upstream,
            tls,
            message: exchange::Request::new(head, out, upgrade, binds),
            idempotent: head.method.is_idempotent(),
            path_index,
            received: head.len as u64,
            upstream_keepalive,
            permit,
            notes,
        }))
    }

    fn notes(&self, head: &RequestHead<'_>, permit: Option<&Permit>) -> Box<ForwardNotes> {
        let of_user = permit.and_then(|permit| permit.user.config.log_uri_max_chars);
        let most = of_user.unwrap_or(self.server.options.log_uri_max_chars);
        let agent = head
            .field("user-agent")
            .map(|field| String::from_utf8_lossy(field.value).into());
        Box::new(ForwardNotes {
            method: head.method.as_str().into(),
            uri: Redacted::new(head.raw_target, most).to_string().into(),
            user_agent: agent,
            pipeline_wait: self.received.elapsed(),
            ..ForwardNotes::default()
        })
    }

    /// A request for the proxy itself: the well-known URIs that name another one (client-protocol.md §1).
    fn local(&mut self, head: &mut RequestHead<'_>, path: &str) -> Result<Plan, TaskError> {
        let url = if let Some(rest) = path.strip_prefix("/.well-known/easy-proxy/") {
            let mut parts = rest.splitn(4, '/');
            let (Some(scheme), Some(host), Some(port)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(TaskError::NoUpstream);
            };
            let host = percent_decode_str(host)
                .decode_utf8()
                .map_err(|_| TaskError::NoUpstream)?;
            let bracketed = host.contains(':') && !host.starts_with('[');
            let host = if bracketed {
                format!("[{host}]")
            } else {
                host.into_owned()
            };
            format!("{scheme}://{host}:{port}/{}", parts.next().unwrap_or_default())
        } else if let Some(rest) = path.strip_prefix("/.well-known/masque/http/") {
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            percent_decode_str(rest)
                .decode_utf8()
                .map_err(|_| TaskError::NoUpstream)?
                .into_owned()
        } else {
            return Err(TaskError::Unimplemented("a request for the proxy itself"));
        };
        // Decoding may have brought bytes that no request line can hold.
        if !url.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TaskError::NoUpstream);
        }
        let url = Absolute::parse(&url)?;
        self.forward(head, &url, true)
    }

    /// Asks whether the request may go on: the user's rules, then the server's (users.md §10.5).
    fn admit(
        &mut self,
        kind: RequestKind,
        upstream: &Upstream,
        head: &RequestHead<'_>,
    ) -> Result<Option<Permit>, TaskError> {
        let server = self.server;
        let permit = server
            .rules
            .admit(&server.common, self.login.as_deref_mut(), kind, upstream)?;
        let Some(login) = &self.login else { return Ok(permit) };
        if kind != RequestKind::HttpConnect {
            let agents = head
                .fields()
                .filter(|field| field.name.eq_ignore_ascii_case("user-agent"));
            login.check_user_agents(agents.map(|field| field.value))?;
        }
        Ok(permit)
    }

    /// The number id of the egress path selection header, which stays here.
    fn path_index(&self, head: &mut RequestHead<'_>) -> Result<Option<u64>, TaskError> {
        let Some(name) = &self.server.options.path_header else {
            return Ok(None);
        };
        let Some(field) = head.field(name) else { return Ok(None) };
        let index = std::str::from_utf8(field.value)
            .ok()
            .and_then(|value| value.parse().ok());
        head.remove(name);
        index.map(Some).ok_or(TaskError::BadPathIndex)
    }
}

fn upstream(authority: &Authority<'_>, default_port: u16) -> Result<Upstream, TaskError> {
    let host = Host::parse(authority.host).map_err(|_| TaskError::NoUpstream)?;
    Ok(Upstream {
        host,
        port: authority.port.unwrap_or(default_port),
    })
}
