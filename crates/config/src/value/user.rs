//! Users of the system.

use std::borrow::Cow;

use super::scalar::{Raw, Scalar, UNFIT, scalar};

/// A user of the system, by uid or by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User(
    /// The uid.
    pub u32,
);

impl User {
    /// The user of this name in `/etc/passwd`; `None` if there is none.
    pub fn named(name: &str) -> Option<Self> {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        uid_of(&passwd, name).map(Self)
    }
}

impl Scalar for User {
    const EXPECTED: &'static str = "a uid or the name of a user of this system";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        match raw {
            Raw::Int(uid) => u32::try_from(uid).map(Self).map_err(|_| UNFIT),
            Raw::Str(text) => match text.parse() {
                Ok(uid) => Ok(Self(uid)),
                Err(_) => Self::named(text).ok_or(UNFIT),
            },
            _ => Err(UNFIT),
        }
    }
}

scalar!(User, {"type": ["string", "integer"], "description": "a uid, or the name of a user"});

/// The uid of a name in `passwd` (passwd(5)).
fn uid_of(passwd: &str, name: &str) -> Option<u32> {
    let of = |line: &str| {
        let mut fields = line.split(':');
        let own = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        (own == name).then_some(uid)
    };
    passwd.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_user_is_a_uid_or_a_name_of_this_system() {
        assert_eq!(decode::<User>("0").unwrap(), User(0));
        assert_eq!(decode::<User>("'12'").unwrap(), User(12));
        assert_eq!(decode::<User>("root").unwrap(), User(0));
        for yaml in ["-1", "4294967296", "no such user", "true", "[]"] {
            assert!(decode::<User>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn names_are_found_as_a_whole() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/:\n";
        assert_eq!(uid_of(passwd, "web"), Some(33));
        assert_eq!(uid_of(passwd, "we"), None);
    }
}
