//! crypt(5) strings: MD5-crypt, SHA256-crypt and SHA512-crypt.

mod md5;
mod sha;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::name::MAX_PASSWORD;

/// The numbers of rounds that `rounds=` may say.
pub const ROUNDS: RangeInclusive<u32> = 1000..=999_999_999;

/// The rounds of SHA-crypt where nothing is said.
pub const DEFAULT_ROUNDS: u32 = 5000;

/// The letters of a salt that is made, 64 of them, and of the hash.
pub const SALT_LETTERS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// How a hash is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CryptMethod {
    /// `$1$`: 1000 rounds of MD5, for what exists. Broken for all else.
    Md5,
    /// `$5$`.
    Sha256,
    /// `$6$`.
    Sha512,
}

impl CryptMethod {
    /// What a string of this method begins with.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Md5 => "$1$",
            Self::Sha256 => "$5$",
            Self::Sha512 => "$6$",
        }
    }

    /// The longest salt, in bytes.
    pub const fn max_salt(self) -> usize {
        match self {
            Self::Md5 => 8,
            Self::Sha256 | Self::Sha512 => 16,
        }
    }

    /// How many letters the hash has, and how many values its last letter can have: the last bytes do not fill it.
    const fn letters(self) -> (usize, u8) {
        match self {
            Self::Md5 => (22, 4),
            Self::Sha256 => (43, 16),
            Self::Sha512 => (86, 4),
        }
    }
}

/// A hash with all that it was made with.
#[derive(Clone, PartialEq, Eq)]
pub struct CryptHash {
    method: CryptMethod,
    /// `None` if the string does not say it.
    rounds: Option<u32>,
    salt: Box<str>,
    hash: Box<str>,
}

/// Why there is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CryptError {
    /// The hash is too short or too long, or holds a letter that it cannot have.
    #[error("the hash is malformed: it has {expected} letters, digits, dots and slashes")]
    Hash {
        /// How many letters it should have.
        expected: usize,
    },
    /// A password of more than 255 bytes.
    #[error("a password has at most 255 bytes")]
    PasswordTooLong,
    /// The beginning names no method.
    #[error("the string begins with none of `$1$`, `$5$` and `$6$`")]
    Prefix,
    /// What follows `rounds=` is no number that is allowed.
    #[error("`rounds=` is followed by no number from 1000 to 999999999")]
    Rounds,
    /// MD5-crypt always has 1000 rounds.
    #[error("the rounds of MD5-crypt cannot be chosen")]
    RoundsOfMd5,
    /// The salt is missing.
    #[error("the salt is missing")]
    SaltEmpty,
    /// The salt holds a `$`, a blank or what is not ASCII; one that is made, anything but [`SALT_LETTERS`].
    #[error("the salt holds a character that it cannot have")]
    SaltLetter,
    /// The salt is too long.
    #[error("the salt has more than {max} characters")]
    SaltTooLong {
        /// How long it may be.
        max: usize,
    },
}

impl CryptHash {
    /// Reads a string such as `$5$rounds=10000$salt$hash`.
    ///
    /// # Errors
    /// [`CryptError`], see its variants.
    pub fn parse(text: &str) -> Result<Self, CryptError> {
        let methods = [CryptMethod::Md5, CryptMethod::Sha256, CryptMethod::Sha512];
        let found = methods
            .into_iter()
            .find_map(|method| Some((method, text.strip_prefix(method.prefix())?)));
        let (method, rest) = found.ok_or(CryptError::Prefix)?;
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) if method != CryptMethod::Md5 => {
                let (digits, rest) = rest.split_once('$').ok_or(CryptError::Rounds)?;
                (Some(parse_rounds(digits)?), rest)
            }
            _ => (None, rest),
        };
        let (salt, hash) = rest.split_once('$').unwrap_or((rest, ""));
        check_salt(method, salt)?;
        check_hash(method, hash)?;
        Ok(Self {
            method,
            rounds,
            salt: salt.into(),
            hash: hash.into(),
        })
    }

    /// Makes the hash of a password, with a salt of [`SALT_LETTERS`]. Without `rounds` there are [`DEFAULT_ROUNDS`], and the
    /// string does not say so.
    ///
    /// # Errors
    /// [`CryptError`] if one of the parts is not allowed.
    pub fn make(method: CryptMethod, rounds: Option<u32>, salt: &str, password: &str) -> Result<Self, CryptError> {
        check_salt(method, salt)?;
        if !salt.bytes().all(|byte| SALT_LETTERS.contains(&byte)) {
            return Err(CryptError::SaltLetter);
        }
        match rounds {
            Some(_) if method == CryptMethod::Md5 => return Err(CryptError::RoundsOfMd5),
            Some(rounds) if !ROUNDS.contains(&rounds) => return Err(CryptError::Rounds),
            _ => {}
        }
        if password.len() > MAX_PASSWORD {
            return Err(CryptError::PasswordTooLong);
        }
        Ok(Self {
            method,
            rounds,
            salt: salt.into(),
            hash: hash(method, rounds, salt, password).into(),
        })
    }

    /// Whether the password is the one that the hash was made of.
    ///
    /// This takes a millisecond for 5000 rounds.
    pub fn verify(&self, password: &str) -> bool {
        password.len() <= MAX_PASSWORD && {
            let hash = hash(self.method, self.rounds, &self.salt, password);
            self.hash.as_bytes().ct_eq(hash.as_bytes()).into()
        }
    }

    /// The method.
    pub fn method(&self) -> CryptMethod {
        self.method
    }

    /// The string, for its use.
    pub fn reveal(&self) -> String {
        let mut text = self.method.prefix().to_owned();
        if let Some(rounds) = self.rounds {
            write!(text, "rounds={rounds}$").expect("a String takes every write");
        }
        text + &self.salt + "$" + &self.hash
    }
}

impl fmt::Debug for CryptHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CryptHash")
            .field("method", &self.method)
            .field("rounds", &self.rounds)
            .finish_non_exhaustive()
    }
}

fn parse_rounds(digits: &str) -> Result<u32, CryptError> {
    // u32::from_str would take a sign, and a zero in front would not come back out.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let rounds = digits.parse().ok().filter(|rounds| plain && ROUNDS.contains(rounds));
    rounds.ok_or(CryptError::Rounds)
}

fn check_salt(method: CryptMethod, salt: &str) -> Result<(), CryptError> {
    let max = method.max_salt();
    if salt.is_empty() {
        Err(CryptError::SaltEmpty)
    } else if salt.len() > max {
        Err(CryptError::SaltTooLong { max })
    } else if salt.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'$') {
        Err(CryptError::SaltLetter)
    } else {
        Ok(())
    }
}

fn check_hash(method: CryptMethod, hash: &str) -> Result<(), CryptError> {
    let (expected, last_below) = method.letters();
    let value = |byte: u8| SALT_LETTERS.iter().position(|letter| *letter == byte);
    let fits = hash.len() == expected
        && hash.bytes().all(|byte| value(byte).is_some())
        && hash
            .bytes()
            .last()
            .and_then(value)
            .is_some_and(|last| last < last_below.into());
    if fits {
        Ok(())
    } else {
        Err(CryptError::Hash { expected })
    }
}

fn hash(method: CryptMethod, rounds: Option<u32>, salt: &str, password: &str) -> String {
    let (password, salt) = (password.as_bytes(), salt.as_bytes());
    let rounds = rounds.unwrap_or(DEFAULT_ROUNDS);
    match method {
        CryptMethod::Md5 => md5::hash(password, salt),
        CryptMethod::Sha256 => sha::sha256(password, salt, rounds),
        CryptMethod::Sha512 => sha::sha512(password, salt, rounds),
    }
}

/// Writes bytes of a digest in the letters of crypt(5), six bits each from the low end: three bytes in four letters, the
/// first of them highest. An index of `None` stands for no byte; with two of them two letters are left, with one three.
fn put_letters(digest: &[u8], groups: impl IntoIterator<Item = [Option<usize>; 3]>) -> String {
    let mut text = String::with_capacity(86);
    for group in groups {
        let byte = |index: Option<usize>| index.and_then(|index| digest.get(index)).copied().unwrap_or_default();
        let mut bits = u32::from_be_bytes([0, byte(group[0]), byte(group[1]), byte(group[2])]);
        for _ in 0..=group.iter().flatten().count() {
            let letter = SALT_LETTERS.get(bits as usize & 0x3f).copied().unwrap_or_default();
            text.push(letter.into());
            bits >>= 6;
        }
    }
    text
}

/// `length` bytes of a digest, which is repeated as often as needed.
fn stretch(digest: &[u8], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}
