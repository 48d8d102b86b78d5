//! What can be wrong with a message, and what a generator answers that mints nothing.

use crate::cursor::Cut;

/// Why no certificate was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// There is no CA; the text names the key of the configuration.
    NoCa,
    /// The host is on the list of those that no certificate is made for.
    NeverMint,
    /// More certificates were asked for than the limit allows.
    OverRate,
    /// The request can not be understood.
    BadRequest,
    /// The request is understood, but not built.
    Unsupported,
    /// Something went wrong while the certificate was made.
    Failed,
    /// Too much waits to be made.
    Busy,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::NoCa,
        Self::NeverMint,
        Self::OverRate,
        Self::BadRequest,
        Self::Unsupported,
        Self::Failed,
        Self::Busy,
    ];

    /// The number on the wire.
    pub const fn id(self) -> u8 {
        match self {
            Self::NoCa => 1,
            Self::NeverMint => 2,
            Self::OverRate => 3,
            Self::BadRequest => 4,
            Self::Unsupported => 5,
            Self::Failed => 6,
            Self::Busy => 7,
        }
    }

    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoCa => "no_ca",
            Self::NeverMint => "never_mint",
            Self::OverRate => "over_rate",
            Self::BadRequest => "bad_request",
            Self::Unsupported => "unsupported",
            Self::Failed => "failed",
            Self::Busy => "busy",
        }
    }

    /// Whether the generator works and follows its rules: no failure that a policy for failures may bypass.
    pub const fn is_policy(self) -> bool {
        matches!(self, Self::NeverMint | Self::OverRate)
    }

    /// The code of a number; one of a later version is a failure.
    pub(super) fn of_id(id: u64) -> Self {
        let known = Self::ALL.into_iter().find(|code| u64::from(code.id()) == id);
        known.unwrap_or(Self::Failed)
    }
}

/// A generator's answer that it mints nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {text}", code.name())]
pub struct MintError {
    /// The kind of error.
    pub code: ErrorCode,
    /// What an operator needs to know; not for clients.
    pub text: String,
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A required key is absent or empty.
    #[error("`{key}` is missing or empty")]
    Missing {
        /// The key's name.
        key: &'static str,
    },
    /// The bytes end within a value, or what they say can not be.
    #[error("not msgpack")]
    NotMsgpack,
    /// The root is neither a map nor, in a request, a host's name.
    #[error("not a map")]
    NotAMap,
    /// The name of a host is longer than any can be.
    #[error("the host's name has {length} bytes")]
    TooLongHost {
        /// Its length in bytes.
        length: usize,
    },
    /// Something follows the value.
    #[error("bytes follow the message")]
    Trailing,
    /// A key that is not known, in a datagram.
    #[error("a key that is not known")]
    UnknownKey,
    /// A value is of a type or size that its key can not have.
    #[error("the value of `{key}` can not be read")]
    BadValue {
        /// The key's name.
        key: &'static str,
    },
}

impl From<Cut> for Problem {
    fn from(_: Cut) -> Self {
        Self::NotMsgpack
    }
}

/// A request that can not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Rejected {
    /// The request's number, as far as it could be read, for the answer.
    pub id: Option<u32>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}
