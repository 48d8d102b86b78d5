//! The `Encapsulated` field: which parts of HTTP messages follow a head, and where each begins (RFC 3507 §4.4.1).

use std::fmt;

use crate::head::decimal;

/// The body among the parts; it is the last one, and in chunks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyPart {
    /// `null-body`: there is none.
    #[default]
    None,
    /// `opt-body`, of OPTIONS.
    Options,
    /// `req-body`.
    Request,
    /// `res-body`.
    Response,
}

impl BodyPart {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "null-body",
            Self::Options => "opt-body",
            Self::Request => "req-body",
            Self::Response => "res-body",
        }
    }
}

/// The parts of a message, in the one order that they may have: request head, response head, body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encapsulated {
    /// Bytes of the HTTP request head; 0 if there is none.
    pub request_head: u32,
    /// Bytes of the HTTP response head; 0 if there is none.
    pub response_head: u32,
    /// The body.
    pub body: BodyPart,
}

impl Encapsulated {
    /// Reads the field's value.
    ///
    /// # Errors
    /// [`EncapsulatedError`].
    pub fn parse(value: &[u8]) -> Result<Self, EncapsulatedError> {
        let mut heads: [Option<u32>; 2] = [None; 2];
        let mut items = value.split(|&b| b == b',').map(<[u8]>::trim_ascii).peekable();
        let mut last = None;
        while let Some(item) = items.next() {
            let (name, offset) = split(item).ok_or(EncapsulatedError::Malformed)?;
            // The first part begins at 0, and no head is empty.
            if last.map_or(offset != 0, |last| offset <= last) {
                return Err(EncapsulatedError::Offset);
            }
            last = Some(offset);
            let body = [BodyPart::None, BodyPart::Options, BodyPart::Request, BodyPart::Response]
                .into_iter()
                .find(|body| name.eq_ignore_ascii_case(body.as_str().as_bytes()));
            match body {
                Some(body) if items.peek().is_none() => return Self::of(heads, offset, body),
                Some(_) => return Err(EncapsulatedError::Order),
                None if name.eq_ignore_ascii_case(b"req-hdr") => match heads {
                    [None, None] => heads[0] = Some(offset),
                    _ => return Err(EncapsulatedError::Order),
                },
                None if name.eq_ignore_ascii_case(b"res-hdr") => match heads {
                    [_, None] => heads[1] = Some(offset),
                    _ => return Err(EncapsulatedError::Order),
                },
                None => return Err(EncapsulatedError::Malformed),
            }
        }
        Err(EncapsulatedError::NoBody)
    }

    fn of(heads: [Option<u32>; 2], body_at: u32, body: BodyPart) -> Result<Self, EncapsulatedError> {
        let [request, response] = heads;
        let (request_head, response_head) = match (request, response) {
            (None, None) => (0, 0),
            (Some(_), None) => (body_at, 0),
            (None, Some(_)) => (0, body_at),
            (Some(_), Some(at)) => (at, body_at - at),
        };
        Ok(Self {
            request_head,
            response_head,
            body,
        })
    }

    /// Bytes of all heads: where the body begins.
    pub const fn heads(&self) -> usize {
        self.request_head as usize + self.response_head as usize
    }
}

/// `name=offset`.
fn split(item: &[u8]) -> Option<(&[u8], u32)> {
    let equals = memchr::memchr(b'=', item)?;
    let (name, offset) = item.split_at_checked(equals)?;
    Some((name.trim_ascii(), decimal(offset.get(1..)?.trim_ascii())?))
}

impl fmt::Display for Encapsulated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.request_head > 0 {
            f.write_str("req-hdr=0, ")?;
        }
        if self.response_head > 0 {
            write!(f, "res-hdr={}, ", self.request_head)?;
        }
        write!(f, "{}={}", self.body.as_str(), self.heads())
    }
}

/// Why an `Encapsulated` field is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncapsulatedError {
    /// An element that is no `name=offset` of a known name.
    #[error("malformed Encapsulated field")]
    Malformed,
    /// It names no body, not even a null one.
    #[error("the Encapsulated field names no body")]
    NoBody,
    /// An offset that does not lie behind the one before, or a first one that is not 0.
    #[error("offsets of the Encapsulated field do not grow from 0")]
    Offset,
    /// Parts in another order than request head, response head, body; or one of them twice.
    #[error("parts of the Encapsulated field in a wrong order")]
    Order,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request_head: u32, response_head: u32, body: BodyPart) -> Encapsulated {
        Encapsulated {
            request_head,
            response_head,
            body,
        }
    }

    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        for (text, expected) in [
            ("req-hdr=0, null-body=170", parts(170, 0, BodyPart::None)),
            ("req-hdr=0, req-body=147", parts(147, 0, BodyPart::Request)),
            (
                "req-hdr=0, res-hdr=137, res-body=296",
                parts(137, 159, BodyPart::Response),
            ),
            ("res-hdr=0, res-body=213", parts(0, 213, BodyPart::Response)),
            ("req-body=0", parts(0, 0, BodyPart::Request)),
            ("null-body=0", parts(0, 0, BodyPart::None)),
            ("opt-body=0", parts(0, 0, BodyPart::Options)),
        ] {
            assert_eq!(Encapsulated::parse(text.as_bytes()), Ok(expected));
            assert_eq!(expected.to_string(), text);
        }
    }

    #[test]
    fn spaces_and_case_do_not_matter() {
        assert_eq!(
            Encapsulated::parse(b"Req-Hdr = 0 ,RES-HDR=5,null-body=9"),
            Ok(parts(5, 4, BodyPart::None))
        );
    }

    #[test]
    fn contradictions_are_refused() {
        use EncapsulatedError::{Malformed, NoBody, Offset, Order};
        for (text, error) in [
            ("", Malformed),
            ("req-hdr", Malformed),
            ("req-hdr=0", NoBody),
            ("req-hdr=0, res-hdr=9", NoBody),
            ("req-hdr=1, null-body=9", Offset),
            ("req-hdr=0, null-body=0", Offset),
            ("req-hdr=0, res-hdr=20, res-body=10", Offset),
            ("res-hdr=0, req-hdr=5, null-body=9", Order),
            ("req-hdr=0, req-hdr=5, null-body=9", Order),
            ("null-body=0, req-hdr=5", Order),
            ("req-hdr=0, req-body=-1", Malformed),
            ("req-hdr=0, req-body=4294967296", Malformed),
            ("trailer=0, req-body=4", Malformed),
        ] {
            assert_eq!(Encapsulated::parse(text.as_bytes()), Err(error), "{text}");
        }
    }
}
