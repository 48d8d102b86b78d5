//! Request methods (RFC 9110 §9).

use std::fmt;

/// A request method. Names are case-sensitive: `get` is an extension method, not GET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method<'b> {
    /// CONNECT: a tunnel to the authority in the target.
    Connect,
    /// DELETE.
    Delete,
    /// GET.
    Get,
    /// HEAD: as GET, but the response has no body.
    Head,
    /// OPTIONS.
    Options,
    /// PATCH (RFC 5789).
    Patch,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// TRACE.
    Trace,
    /// Any other token.
    Extension(&'b str),
}

impl<'b> Method<'b> {
    /// The method of a token that the parser has already found valid.
    pub(crate) fn from_token(token: &'b str) -> Self {
        match token {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "CONNECT" => Self::Connect,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "OPTIONS" => Self::Options,
            "DELETE" => Self::Delete,
            "PATCH" => Self::Patch,
            "TRACE" => Self::Trace,
            other => Self::Extension(other),
        }
    }

    /// The method as it stands in the request line.
    pub const fn as_str(self) -> &'b str {
        match self {
            Self::Connect => "CONNECT",
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Trace => "TRACE",
            Self::Extension(token) => token,
        }
    }

    /// Whether sending the request twice does what sending it once does (RFC 9110 §9.2.2).
    ///
    /// Of an extension method nothing is known, so the answer is no.
    pub const fn is_idempotent(self) -> bool {
        matches!(
            self,
            Self::Delete | Self::Get | Self::Head | Self::Options | Self::Put | Self::Trace
        )
    }

    /// What the framing of its response depends on.
    pub const fn awaits(self) -> Awaits {
        match self {
            Self::Connect => Awaits::Connect,
            Self::Head => Awaits::Head,
            _ => Awaits::Other,
        }
    }
}

impl fmt::Display for Method<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The part of the request method that decides how its response is framed; outlives the request's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaits {
    /// The request was CONNECT: a 2xx starts a tunnel.
    Connect,
    /// The request was HEAD: no response has a body.
    Head,
    /// Any other method.
    #[default]
    Other,
}

impl From<Method<'_>> for Awaits {
    fn from(method: Method<'_>) -> Self {
        method.awaits()
    }
}
