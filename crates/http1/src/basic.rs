//! Basic credentials (RFC 7617).

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A user name and a password from an Authorization or Proxy-Authorization field.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    text: String,
    colon: usize,
}

impl Credentials {
    /// Reads a field value like `Basic dXNlcjpwYXNz`. User and password are UTF-8 (H1-17).
    ///
    /// # Errors
    /// [`CredentialsError`], see its variants.
    pub fn parse(value: &[u8]) -> Result<Self, CredentialsError> {
        let space = value.iter().position(|&b| b == b' ').ok_or(CredentialsError::Scheme)?;
        let (scheme, encoded) = value.split_at_checked(space).ok_or(CredentialsError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(b"basic") {
            return Err(CredentialsError::Scheme);
        }
        let bytes = BASE64
            .decode(encoded.trim_ascii())
            .map_err(|_| CredentialsError::Encoding)?;
        let text = String::from_utf8(bytes).map_err(|_| CredentialsError::Encoding)?;
        if text.chars().any(char::is_control) {
            return Err(CredentialsError::Control);
        }
        let colon = text.find(':').ok_or(CredentialsError::Colon)?;
        Ok(Self { text, colon })
    }

    /// The user's name, maybe empty.
    pub fn user(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    /// The password, maybe empty or with colons in it.
    pub fn password(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user())
            .finish_non_exhaustive()
    }
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a field value holds no Basic credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// There is no colon between user and password.
    #[error("no colon in the credentials")]
    Colon,
    /// A control character, which RFC 7617 §2 forbids.
    #[error("control character in the credentials")]
    Control,
    /// Not base64, or not UTF-8.
    #[error("the credentials are not base64 of UTF-8")]
    Encoding,
    /// Another scheme than Basic.
    #[error("authentication scheme is not Basic")]
    Scheme,
}

#[cfg(test)]
mod tests {
    use super::{Credentials, CredentialsError};

    #[test]
    fn utf8_users_and_passwords_work_h1_17() {
        let credentials = Credentials::parse("Basic w7w6cMOkOnNz".as_bytes()).unwrap();
        assert_eq!((credentials.user(), credentials.password()), ("ü", "pä:ss"));
    }

    #[test]
    fn accepted_and_refused_forms() {
        let parse =
            |value: &str| Credentials::parse(value.as_bytes()).map(|c| (c.user().to_owned(), c.password().to_owned()));
        let ok = |user: &str, password: &str| Ok((user.to_owned(), password.to_owned()));
        assert_eq!(parse("Basic dXNlcjpwYXNz"), ok("user", "pass"));
        assert_eq!(parse("bASIC   dXNlcjpwYXNz"), ok("user", "pass"));
        assert_eq!(parse("Basic Og=="), ok("", ""));
        assert_eq!(parse("Basic Og"), ok("", ""));
        assert_eq!(parse("Basic dXNlcg=="), Err(CredentialsError::Colon));
        assert_eq!(parse("Basic dTpwCg=="), Err(CredentialsError::Control));
        assert_eq!(parse("Basic /zr/"), Err(CredentialsError::Encoding));
        assert_eq!(parse("Basic !!!"), Err(CredentialsError::Encoding));
        assert_eq!(parse("Basic"), Err(CredentialsError::Scheme));
        assert_eq!(parse("Negotiate YII="), Err(CredentialsError::Scheme));
    }

    #[test]
    fn debug_hides_the_password() {
        let credentials = Credentials::parse(b"Basic dXNlcjpwYXNz").unwrap();
        assert!(!format!("{credentials:?}").contains("pass"));
    }
}
