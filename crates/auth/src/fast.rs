//! Salted hashes that are made in one step: quick to check, and quick to guess from. For what exists.

use std::borrow::Cow;
use std::fmt;

use md5::Md5;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};
use sha1::Sha1;
use subtle::ConstantTimeEq;

use crate::name::MAX_PASSWORD;

/// A kind of digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// BLAKE3, 32 bytes.
    Blake3,
    /// MD5, 16 bytes.
    Md5,
    /// SHA-1, 20 bytes.
    Sha1,
}

/// The salt of a [`FastHash`].
pub type Salt = [u8; 8];

/// Digests of the password's bytes followed by the salt's. All that are there must match.
#[derive(Clone, PartialEq, Eq)]
pub struct FastHash {
    pub(crate) salt: Hex<8>,
    pub(crate) md5: Option<Hex<16>>,
    pub(crate) sha1: Option<Hex<20>>,
    pub(crate) blake3: Option<Hex<32>>,
}

impl FastHash {
    /// Makes digests of a password; `None` if it has more than 255 bytes, or no digest is asked for.
    pub fn make(digests: &[Digest], salt: Salt, password: &str) -> Option<Self> {
        let wanted = |digest| digests.contains(&digest);
        let hash = Self {
            salt: Hex(salt),
            md5: wanted(Digest::Md5).then(|| Hex(md5(password, salt))),
            sha1: wanted(Digest::Sha1).then(|| Hex(sha1(password, salt))),
            blake3: wanted(Digest::Blake3).then(|| Hex(blake3(password, salt))),
        };
        (password.len() <= MAX_PASSWORD && !digests.is_empty()).then_some(hash)
    }

    /// Reads a salt: 16 hexadecimal digits.
    pub fn parse_salt(text: &str) -> Option<Salt> {
        Hex::parse(text).map(|salt| salt.0)
    }

    /// Whether the password is the one that the digests were made of.
    pub fn verify(&self, password: &str) -> bool {
        let salt = self.salt.0;
        let some = self.md5.is_some() || self.sha1.is_some() || self.blake3.is_some();
        // Each is made and compared, whatever the others say.
        let md5 = self.md5.is_none_or(|own| own.is(md5(password, salt)));
        let sha1 = self.sha1.is_none_or(|own| own.is(sha1(password, salt)));
        let blake3 = self.blake3.is_none_or(|own| own.is(blake3(password, salt)));
        password.len() <= MAX_PASSWORD && some & md5 & sha1 & blake3
    }

    /// The keys of its map and their values in hexadecimal, for their use.
    pub fn reveal(&self) -> impl Iterator<Item = (&'static str, String)> {
        let md5 = self.md5.map(|own| ("md5", own.to_text()));
        let sha1 = self.sha1.map(|own| ("sha1", own.to_text()));
        let blake3 = self.blake3.map(|own| ("blake3", own.to_text()));
        let salt = ("salt", self.salt.to_text());
        [Some(salt), md5, sha1, blake3].into_iter().flatten()
    }
}

impl fmt::Debug for FastHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FastHash").finish_non_exhaustive()
    }
}

fn md5(password: &str, salt: Salt) -> [u8; 16] {
    one_step::<Md5>(password, salt).into()
}

fn sha1(password: &str, salt: Salt) -> [u8; 20] {
    one_step::<Sha1>(password, salt).into()
}

fn one_step<D: sha1::Digest>(password: &str, salt: Salt) -> sha1::digest::Output<D> {
    D::new().chain_update(password).chain_update(salt).finalize()
}

fn blake3(password: &str, salt: Salt) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(password.as_bytes()).update(&salt);
    hasher.finalize().into()
}

/// Bytes that are written in two hexadecimal digits each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hex<const N: usize>([u8; N]);

impl<const N: usize> Hex<N> {
    fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, odd) = text.as_bytes().as_chunks();
        let bytes: Vec<u8> = pairs
            .iter()
            .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
            .collect::<Option<_>>()?;
        odd.is_empty().then(|| bytes.try_into().ok().map(Self)).flatten()
    }

    fn to_text(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn is(self, other: [u8; N]) -> bool {
        self.0.ct_eq(&other).into()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits<const N: usize>;

        impl<const N: usize> Visitor<'_> for Digits<N> {
            type Value = Hex<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(
                    f,
                    "a string of {} hexadecimal digits, quoted if it looks like a number",
                    2 * N
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Hex<N>, E> {
                Hex::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Other("others"), &self))
            }
        }

        // A number is not taken for its digits: leading zeros of it are lost, and more if it has an `e`.
        deserializer.deserialize_any(Digits)
    }
}

impl<const N: usize> JsonSchema for Hex<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Hex{N}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": format!("^[0-9A-Fa-f]{{{}}}$", 2 * N)})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Digest; 3] = [Digest::Md5, Digest::Sha1, Digest::Blake3];

    fn text(hash: &FastHash, key: &str) -> String {
        hash.reveal().find(|(own, _)| *own == key).unwrap().1
    }

    #[test]
    fn the_vectors_match() {
        for (password, salt, md5, sha1) in [
            (
                "toor",
                "113323bdab6fd2cc",
                "5c81f2becadde7fa5fde9026652ccc84",
                "ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96",
            ),
            (
                "open sesame",
                "00112233445566ff",
                "c3489a32a47cf9c4833568e65cb8af19",
                "e50df36f2ab9f05dda868278bb4b0efecb04e4e5",
            ),
        ] {
            let hash = FastHash::make(&ALL, Hex::parse(salt).unwrap().0, password).unwrap();
            assert_eq!((text(&hash, "salt").as_str(), text(&hash, "md5").as_str()), (salt, md5));
            assert_eq!(text(&hash, "sha1"), sha1);
            assert!(hash.verify(password) && !hash.verify("other") && !hash.verify(""));
        }
    }

    #[test]
    fn the_salt_is_appended_to_the_password() {
        let salt = *b"89abcdef";
        assert_eq!(
            text(&FastHash::make(&ALL, salt, "01234567").unwrap(), "blake3"),
            blake3::hash(b"0123456789abcdef").to_hex().as_str()
        );
        // The first of BLAKE3's own test vectors.
        assert_eq!(
            blake3::hash(b"").to_hex().as_str(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
    }

    #[test]
    fn every_digest_must_match() {
        let right = FastHash::make(&ALL, [7; 8], "right").unwrap();
        let wrong = FastHash::make(&ALL, [7; 8], "wrong").unwrap();
        for mixed in [
            FastHash {
                md5: wrong.md5,
                ..right.clone()
            },
            FastHash {
                sha1: wrong.sha1,
                ..right.clone()
            },
            FastHash {
                blake3: wrong.blake3,
                ..right.clone()
            },
            FastHash {
                md5: None,
                sha1: None,
                blake3: None,
                ..right.clone()
            },
        ] {
            assert!(!mixed.verify("right"));
        }
        assert!(right.verify("right"));
        for digest in ALL {
            assert!(FastHash::make(&[digest], [7; 8], "right").unwrap().verify("right"));
        }
    }

    #[test]
    fn passwords_of_more_than_255_bytes_are_nobodys() {
        let (longest, longer) = ("p".repeat(255), "p".repeat(256));
        assert!(FastHash::make(&ALL, [7; 8], &longest).unwrap().verify(&longest));
        assert_eq!(FastHash::make(&ALL, [7; 8], &longer), None);
        let hash = FastHash {
            salt: Hex([7; 8]),
            md5: Some(Hex(md5(&longer, [7; 8]))),
            sha1: None,
            blake3: None,
        };
        assert!(!hash.verify(&longer));
    }
}
