//! User names and passwords (RFC 1929).

use std::fmt;
use std::str;

use thiserror::Error;

use crate::reader::{self, Stop};

/// The longest message with credentials: version, and twice a length and 255 bytes.
pub const MAX_CREDENTIALS: usize = 1 + 2 * (1 + 255);

/// The length of a status.
pub const STATUS: usize = 2;

/// The version of the subnegotiation.
const VERSION: u8 = 1;

/// Who a client says it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Credentials<'b> {
    /// The user's name, at most 255 bytes. RFC 1929 wants at least one; whether an empty one is anybody is not decided here.
    pub user: &'b str,
    /// The password, at most 255 bytes; maybe empty, as for the name.
    pub password: &'b str,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Why bytes are no credentials. [`NotUtf8`](Self::NotUtf8) is answered as wrong credentials are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// The name or the password is not UTF-8: no user has these.
    #[error("user name or password are not UTF-8")]
    NotUtf8,
    /// The first byte is not 1.
    #[error("version {version} is not RFC 1929's")]
    Version {
        /// It.
        version: u8,
    },
}

/// Reads credentials. The longest have [`MAX_CREDENTIALS`] bytes.
///
/// # Errors
/// [`CredentialsError`], see its variants.
pub fn parse_credentials(buf: &[u8]) -> Result<Option<(Credentials<'_>, usize)>, CredentialsError> {
    reader::read(buf, |reader| {
        let version = reader.byte()?;
        if version != VERSION {
            return Err(Stop::Fault(CredentialsError::Version { version }));
        }
        let (user, password) = (reader.counted()?, reader.counted()?);
        Ok(Credentials {
            user: text(user)?,
            password: text(password)?,
        })
    })
}

fn text(bytes: &[u8]) -> Result<&str, Stop<CredentialsError>> {
    str::from_utf8(bytes).map_err(|_| Stop::Fault(CredentialsError::NotUtf8))
}

/// A user name or a password takes more than 255 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a user name of {user} bytes or a password of {password} bytes is longer than 255")]
pub struct CredentialsTooLong {
    /// How long the name is.
    pub user: usize,
    /// How long the password is.
    pub password: usize,
}

/// Appends credentials.
///
/// # Errors
/// [`CredentialsTooLong`]; nothing is appended then.
pub fn put_credentials(credentials: &Credentials<'_>, out: &mut Vec<u8>) -> Result<(), CredentialsTooLong> {
    let (user, password) = (credentials.user, credentials.password);
    let (Ok(user_len), Ok(password_len)) = (u8::try_from(user.len()), u8::try_from(password.len())) else {
        return Err(CredentialsTooLong {
            user: user.len(),
            password: password.len(),
        });
    };
    out.extend_from_slice(&[VERSION, user_len]);
    out.extend_from_slice(user.as_bytes());
    out.push(password_len);
    out.extend_from_slice(password.as_bytes());
    Ok(())
}

/// Appends the answer to credentials; after a failure the server closes the connection.
pub fn put_status(accepted: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(&[VERSION, u8::from(!accepted)]);
}

/// Why a status lets nothing follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StatusError {
    /// The server does not accept the credentials.
    #[error("the server does not accept the user name and password: status {status}")]
    Refused {
        /// Anything but 0.
        status: u8,
    },
}

/// Reads the answer to credentials.
///
/// The version is not looked at: servers are known to send 5 there.
///
/// # Errors
/// [`StatusError`] if they are not accepted.
pub fn parse_status(buf: &[u8]) -> Result<Option<((), usize)>, StatusError> {
    reader::read(buf, |reader| {
        let [_, status] = reader.array()?;
        match status {
            0 => Ok(()),
            status => Err(Stop::Fault(StatusError::Refused { status })),
        }
    })
}
