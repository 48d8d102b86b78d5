//! Requests, from both sides.

use bytes::BytesMut;

use super::{
    Certificate, Form, FrameError, MAX_HOST, Problem, Rejected, Service, Usage, VERSION, frame::put_frame,
    msgpack::Item,
};
use crate::msgpack::{put_bin, put_map, put_str, put_uint};

/// What proxyd asks for: a certificate for a host that looks like the one it saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintRequest {
    /// The number that the answer repeats; on a stream alone.
    pub id: Option<u32>,
    /// The TLS server's name, a domain or an IP address as text.
    pub host: String,
    /// The protocol that TLS was found in.
    pub service: Service,
    /// What the certificate is for.
    pub usage: Usage,
    /// The certificate to mirror.
    pub cert: Option<Certificate>,
}

/// The keys of a request.
#[derive(Clone, Copy)]
enum Field {
    Host,
    Service,
    Cert,
    Usage,
    Id,
    Version,
}

impl Field {
    const ALL: [Self; 6] = [
        Self::Host,
        Self::Service,
        Self::Cert,
        Self::Usage,
        Self::Id,
        Self::Version,
    ];

    const fn id(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Service => 2,
            Self::Cert => 3,
            Self::Usage => 4,
            Self::Id => 16,
            Self::Version => 17,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Service => "service",
            Self::Cert => "cert",
            Self::Usage => "usage",
            Self::Id => "id",
            Self::Version => "version",
        }
    }

    fn is_in(self, form: Form) -> bool {
        form == Form::Stream || !matches!(self, Self::Id | Self::Version)
    }

    fn of(value: Item<'_>, form: Form) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|key| value.is_key(key.id(), key.name()))
            .filter(|key| key.is_in(form))
    }
}

/// Appends a request. In a datagram its order of keys is g3proxy's: host, service, usage, cert.
///
/// # Errors
/// [`FrameError::TooLong`] if it does not fit on a stream; nothing is appended then.
pub fn put_request(out: &mut BytesMut, request: &MintRequest, form: Form) -> Result<(), FrameError> {
    match form {
        Form::Datagram => {
            put_pairs(out, request, None);
            Ok(())
        }
        Form::Stream => put_frame(out, |out| put_pairs(out, request, Some(request.id.unwrap_or_default()))),
    }
}

fn put_pairs(out: &mut BytesMut, request: &MintRequest, id: Option<u32>) {
    let own = if id.is_some() { 2 } else { 0 };
    put_map(out, 3 + usize::from(request.cert.is_some()) + own);
    if let Some(id) = id {
        put_uint(out, Field::Version.id().into());
        put_uint(out, VERSION.into());
        put_uint(out, Field::Id.id().into());
        put_uint(out, id.into());
    }
    put_uint(out, Field::Host.id().into());
    put_str(out, &request.host);
    put_uint(out, Field::Service.id().into());
    put_uint(out, request.service.id().into());
    put_uint(out, Field::Usage.id().into());
    put_uint(out, request.usage.id().into());
    if let Some(cert) = &request.cert {
        put_uint(out, Field::Cert.id().into());
        match cert {
            Certificate::Der(der) => put_bin(out, der),
            Certificate::Pem(pem) => put_str(out, pem),
        }
    }
}

impl MintRequest {
    /// A request without a certificate to mirror.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            id: None,
            host: host.into(),
            service: Service::Http,
            usage: Usage::TlsServer,
            cert: None,
        }
    }

    /// Reads one message as a request. Keys are names or numbers; a message that is but a text is a host's name.
    ///
    /// # Errors
    /// [`Rejected`] tells what is wrong: no msgpack, an unknown key (in a datagram; on a stream it is skipped), a value of
    /// another type, no host.
    pub fn take(message: &[u8], form: Form) -> Result<Self, Rejected> {
        let mut request = Self::new("");
        match request.fill(message, form) {
            Ok(()) => Ok(request),
            Err(problem) => Err(Rejected {
                id: request.id,
                problem,
            }),
        }
    }

    fn fill(&mut self, mut input: &[u8], form: Form) -> Result<(), Problem> {
        match Item::take(&mut input)? {
            Item::Map(pairs) => {
                for _ in 0..pairs {
                    self.take_pair(&mut input, form)?;
                }
            }
            host @ Item::Str(_) => self.host = take_host(host)?,
            _ => return Err(Problem::NotAMap),
        }
        if !input.is_empty() {
            return Err(Problem::Trailing);
        }
        if self.host.is_empty() {
            return Err(Problem::Missing { key: "host" });
        }
        Ok(())
    }

    fn take_pair(&mut self, input: &mut &[u8], form: Form) -> Result<(), Problem> {
        let key = Item::take(input)?;
        key.skip_rest(input)?;
        let value = Item::take(input)?;
        let Some(key) = Field::of(key, form) else {
            return match form {
                Form::Datagram => Err(Problem::UnknownKey),
                Form::Stream => Ok(value.skip_rest(input)?),
            };
        };
        let bad = Problem::BadValue { key: key.name() };
        match key {
            Field::Host => self.host = take_host(value)?,
            Field::Service => self.service = take_service(value).ok_or(bad)?,
            Field::Usage => self.usage = take_usage(value).ok_or(bad)?,
            Field::Cert => {
                self.cert = Some(match value {
                    Item::Bin(der) => Certificate::Der(der.to_vec()),
                    Item::Str(_) => Certificate::Pem(value.text().ok_or(bad)?),
                    _ => return Err(bad),
                });
            }
            Field::Id => self.id = Some(value.number().ok_or(bad)?),
            Field::Version => {
                value.number::<u8>().ok_or(bad)?; // each version reads every other: unknown keys are skipped
            }
        }
        Ok(())
    }
}

fn take_host(value: Item<'_>) -> Result<String, Problem> {
    let host = value.text().ok_or(Problem::BadValue { key: "host" })?;
    match host.len() {
        length if length > MAX_HOST => Err(Problem::TooLongHost { length }),
        _ => Ok(host),
    }
}

pub(super) fn take_service(value: Item<'_>) -> Option<Service> {
    let by_number = |number| Service::ALL.into_iter().find(|known| u64::from(known.id()) == number);
    value.choice(by_number, Service::of_name)
}

pub(super) fn take_usage(value: Item<'_>) -> Option<Usage> {
    let by_number = |number| Usage::ALL.into_iter().find(|known| u64::from(known.id()) == number);
    value.choice(by_number, Usage::of_name)
}
