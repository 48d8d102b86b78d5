//! Responses, from both sides.

use bytes::BytesMut;

use super::{
    ErrorCode, Form, FrameError, MintError, PrivateKey, Problem, Service, Usage, VERSION,
    frame::put_frame,
    msgpack::Item,
    request::{take_service, take_usage},
};
use crate::msgpack::{put_bin, put_map, put_str, put_uint};

/// The most certificates in a list.
const MAX_CHAIN: u32 = 64;

/// The longest text of an error that is sent.
const MAX_TEXT: usize = 1024;

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// PEM, the leaf first, then those that lead to the CA.
    pub chain: String,
    /// The leaf's private key.
    pub key: PrivateKey,
    /// Seconds that it may be kept; 0 if the asker shall use its own least time.
    pub ttl: u32,
}

/// What a generator answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintResponse {
    /// The number of the request; on a stream alone.
    pub id: Option<u32>,
    /// As in the request; empty in an error about a request whose host could not be read.
    pub host: String,
    /// As in the request.
    pub service: Service,
    /// As in the request.
    pub usage: Usage,
    /// The certificate, or why there is none.
    pub outcome: Result<Minted, MintError>,
}

/// The keys of a response.
#[derive(Clone, Copy)]
enum Field {
    Host,
    Service,
    Cert,
    Key,
    Ttl,
    Usage,
    Id,
    Version,
    Error,
    ErrorText,
}

impl Field {
    const ALL: [Self; 10] = [
        Self::Host,
        Self::Service,
        Self::Cert,
        Self::Key,
        Self::Ttl,
        Self::Usage,
        Self::Id,
        Self::Version,
        Self::Error,
        Self::ErrorText,
    ];

    const fn id(self) -> u8 {
        match self {
            Self::Host => 1,
            Self::Service => 2,
            Self::Cert => 3,
            Self::Key => 4,
            Self::Ttl => 5,
            Self::Usage => 6,
            Self::Id => 16,
            Self::Version => 17,
            Self::Error => 18,
            Self::ErrorText => 19,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Service => "service",
            Self::Cert => "cert",
            Self::Key => "key",
            Self::Ttl => "ttl",
            Self::Usage => "usage",
            Self::Id => "id",
            Self::Version => "version",
            Self::Error => "error",
            Self::ErrorText => "error_text",
        }
    }

    fn is_in(self, form: Form) -> bool {
        form == Form::Stream || !matches!(self, Self::Id | Self::Version | Self::Error | Self::ErrorText)
    }

    fn of(value: Item<'_>, form: Form) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|key| value.is_key(key.id(), key.name()))
            .filter(|key| key.is_in(form))
    }
}

/// Appends a response. In a datagram its order of keys is g3fcgen's: host, service, usage, cert, key, ttl; and an error,
/// which has no form there, appends nothing.
///
/// # Errors
/// [`FrameError::TooLong`] if it does not fit on a stream; nothing is appended then.
pub fn put_response(out: &mut BytesMut, response: &MintResponse, form: Form) -> Result<(), FrameError> {
    match form {
        Form::Datagram => {
            if let Ok(minted) = &response.outcome {
                put_map(out, 6);
                put_asked(out, response);
                put_minted(out, minted);
            }
            Ok(())
        }
        Form::Stream => put_frame(out, |out| put_own(out, response)),
    }
}

fn put_own(out: &mut BytesMut, response: &MintResponse) {
    let outcome = match &response.outcome {
        Ok(_) => 3,
        Err(_) => 2,
    };
    put_map(out, 4 + outcome + usize::from(response.id.is_some()));
    put_uint(out, Field::Version.id().into());
    put_uint(out, VERSION.into());
    if let Some(id) = response.id {
        put_uint(out, Field::Id.id().into());
        put_uint(out, id.into());
    }
    put_asked(out, response);
    match &response.outcome {
        Ok(minted) => put_minted(out, minted),
        Err(error) => {
            put_uint(out, Field::Error.id().into());
            put_uint(out, error.code.id().into());
            put_uint(out, Field::ErrorText.id().into());
            put_str(out, first_of(&error.text, MAX_TEXT));
        }
    }
}

fn put_asked(out: &mut BytesMut, response: &MintResponse) {
    put_uint(out, Field::Host.id().into());
    put_str(out, &response.host);
    put_uint(out, Field::Service.id().into());
    put_uint(out, response.service.id().into());
    put_uint(out, Field::Usage.id().into());
    put_uint(out, response.usage.id().into());
}

fn put_minted(out: &mut BytesMut, minted: &Minted) {
    put_uint(out, Field::Cert.id().into());
    put_str(out, &minted.chain);
    put_uint(out, Field::Key.id().into());
    match &minted.key {
        PrivateKey::Der(der) => put_bin(out, der),
        PrivateKey::Pem(pem) => put_str(out, pem),
    }
    put_uint(out, Field::Ttl.id().into());
    put_uint(out, minted.ttl.into());
}

/// The beginning of `text`, at most `length` bytes.
fn first_of(text: &str, length: usize) -> &str {
    let cut = text.floor_char_boundary(length);
    text.get(..cut).unwrap_or_default()
}

/// A response while it is read.
struct Reading {
    response: MintResponse,
    chain: Option<String>,
    key: Option<PrivateKey>,
    ttl: u32,
    code: Option<ErrorCode>,
    text: String,
}

impl MintResponse {
    /// Reads one message as a response. Unknown keys are skipped; a missing `ttl` is 0.
    ///
    /// # Errors
    /// [`Problem`] tells what is wrong: no msgpack, a value of another type, or a certificate without all its parts.
    pub fn take(message: &[u8], form: Form) -> Result<Self, Problem> {
        let mut input = message;
        let Item::Map(pairs) = Item::take(&mut input)? else {
            return Err(Problem::NotAMap);
        };
        let mut reading = Reading::new();
        for _ in 0..pairs {
            reading.take_pair(&mut input, form)?;
        }
        if !input.is_empty() {
            return Err(Problem::Trailing);
        }
        reading.done()
    }
}

impl Reading {
    fn new() -> Self {
        let nothing = MintError {
            code: ErrorCode::Failed,
            text: String::new(),
        };
        Self {
            response: MintResponse {
                id: None,
                host: String::new(),
                service: Service::Http,
                usage: Usage::TlsServer,
                outcome: Err(nothing),
            },
            chain: None,
            key: None,
            ttl: 0,
            code: None,
            text: String::new(),
        }
    }

    fn take_pair(&mut self, input: &mut &[u8], form: Form) -> Result<(), Problem> {
        let key = Item::take(input)?;
        key.skip_rest(input)?;
        let value = Item::take(input)?;
        let Some(key) = Field::of(key, form) else {
            return Ok(value.skip_rest(input)?);
        };
        let bad = Problem::BadValue { key: key.name() };
        match key {
            Field::Host => self.response.host = value.text().ok_or(bad)?,
            Field::Service => self.response.service = take_service(value).ok_or(bad)?,
            Field::Usage => self.response.usage = take_usage(value).ok_or(bad)?,
            Field::Cert => self.chain = Some(take_chain(value, input)?),
            Field::Key => {
                self.key = Some(match value {
                    Item::Bin(der) => PrivateKey::Der(der.to_vec()),
                    Item::Str(_) => PrivateKey::Pem(value.text().ok_or(bad)?),
                    _ => return Err(bad),
                });
            }
            Field::Ttl => self.ttl = value.number().ok_or(bad)?,
            Field::Id => self.response.id = Some(value.number().ok_or(bad)?),
            Field::Version => {
                value.number::<u8>().ok_or(bad)?; // each version reads every other: unknown keys are skipped
            }
            Field::Error => self.code = Some(ErrorCode::of_id(value.number().ok_or(bad)?)),
            Field::ErrorText => self.text = value.text().ok_or(bad)?,
        }
        Ok(())
    }

    fn done(self) -> Result<MintResponse, Problem> {
        let Self {
            mut response,
            chain,
            key,
            ttl,
            code,
            text,
        } = self;
        response.outcome = match code {
            Some(code) => Err(MintError { code, text }),
            None => {
                if response.host.is_empty() {
                    return Err(Problem::Missing { key: "host" });
                }
                Ok(Minted {
                    chain: chain.ok_or(Problem::Missing { key: "cert" })?,
                    key: key.ok_or(Problem::Missing { key: "key" })?,
                    ttl,
                })
            }
        };
        Ok(response)
    }
}

/// A chain: PEM as text or as bytes, or a list of such.
fn take_chain(value: Item<'_>, input: &mut &[u8]) -> Result<String, Problem> {
    let bad = Problem::BadValue { key: "cert" };
    let Item::Array(count) = value else {
        return pem(value).ok_or(bad);
    };
    if count > MAX_CHAIN {
        return Err(bad);
    }
    let mut chain = String::new();
    for _ in 0..count {
        let one = pem(Item::take(input)?).ok_or(bad)?;
        chain.push_str(&one);
        if !one.ends_with('\n') {
            chain.push('\n');
        }
    }
    Ok(chain)
}

fn pem(value: Item<'_>) -> Option<String> {
    match value {
        Item::Str(_) | Item::Bin(_) => value.text(),
        _ => None,
    }
}
