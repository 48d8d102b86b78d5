//! The methods of authentication: offered and chosen (RFC 1928 §3).

use thiserror::Error;

use crate::reader::{self, Stop};

/// The longest greeting: version, number, 255 methods.
pub const MAX_GREETING: usize = 2 + 255;

/// The length of a choice.
pub const CHOICE: usize = 2;

/// In the place of a method: none of those offered will do.
const NONE_ACCEPTABLE: u8 = 0xff;

/// A method that is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// 0: no authentication.
    NoAuth,
    /// 2: user name and password (RFC 1929).
    UserPassword,
}

impl Method {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::NoAuth => 0,
            Self::UserPassword => 2,
        }
    }

    const fn of(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::NoAuth),
            2 => Some(Self::UserPassword),
            _ => None,
        }
    }
}

/// What a client begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting<'b> {
    /// The numbers of the methods that it offers, maybe none.
    pub methods: &'b [u8],
}

impl Greeting<'_> {
    /// Whether the client offers a method.
    pub fn offers(&self, method: Method) -> bool {
        self.methods.contains(&method.code())
    }
}

/// Why bytes are no greeting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GreetingError {
    /// The first byte is not 5: nothing can be answered.
    #[error("version {version} is not SOCKS5")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads a greeting. The longest one has [`MAX_GREETING`] bytes.
///
/// # Errors
/// [`GreetingError`] if it is not of SOCKS5.
pub fn parse_greeting(buf: &[u8]) -> Result<Option<(Greeting<'_>, usize)>, GreetingError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != 5 {
            return Err(Stop::Fault(GreetingError::Version { version }));
        }
        let methods = reader.counted()?;
        Ok(Greeting { methods })
    })
}

/// Appends a greeting that offers the first 255 of `methods`.
pub fn put_greeting(methods: &[Method], out: &mut Vec<u8>) {
    let count = u8::try_from(methods.len()).unwrap_or(u8::MAX);
    out.extend_from_slice(&[5, count]);
    out.extend(methods.iter().take(count.into()).map(|method| method.code()));
}

/// Appends the choice of a method, or that none of those offered will do.
pub fn put_choice(method: Option<Method>, out: &mut Vec<u8>) {
    out.extend_from_slice(&[5, method.map_or(NONE_ACCEPTABLE, Method::code)]);
}

/// Why a server's choice lets nothing follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ChoiceError {
    /// The server accepts none of the methods.
    #[error("the server accepts none of the methods offered")]
    NoneAcceptable,
    /// The server chose a method that it was not offered.
    #[error("the server chose method {code}, which it was not offered")]
    NotOffered {
        /// Its number.
        code: u8,
    },
    /// The first byte is not 5.
    #[error("version {version} is not SOCKS5")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads what the server chose out of the methods that it was `offered`.
///
/// # Errors
/// [`ChoiceError`], see its variants.
pub fn parse_choice(buf: &[u8], offered: &[Method]) -> Result<Option<(Method, usize)>, ChoiceError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != 5 {
            return Err(Stop::Fault(ChoiceError::Version { version }));
        }
        let code = reader.byte()?;
        match Method::of(code) {
            Some(method) if offered.contains(&method) => Ok(method),
            _ if code == NONE_ACCEPTABLE => Err(Stop::Fault(ChoiceError::NoneAcceptable)),
            _ => Err(Stop::Fault(ChoiceError::NotOffered { code })),
        }
    })
}
