//! Heads: a start line, fields, an empty line (RFC 3507 §4.3).

use std::str;

/// Bounds for what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one ICAP head, the empty line included. Default 8 KiB.
    pub head_max: u32,
    /// Fields of one ICAP head. Default 64.
    pub fields_max: u16,
    /// Bytes of the HTTP heads within a message together. Default 128 KiB.
    pub parts_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_max: 8 * 1024,
            fields_max: 64,
            parts_max: 128 * 1024,
        }
    }
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// A CR without an LF, or an LF without a CR.
    #[error("bare CR or LF in the ICAP head")]
    BareCrLf,
    /// A field name that is no token, or a line without a colon.
    #[error("malformed field name in the ICAP head")]
    FieldName,
    /// A control byte in a field value.
    #[error("control byte in a field value of the ICAP head")]
    FieldValue,
    /// A first line that is not ASCII.
    #[error("malformed first line of the ICAP head")]
    StartLine,
    /// More fields than [`Limits::fields_max`].
    #[error("too many fields in the ICAP head")]
    TooManyFields,
    /// A head of more than [`Limits::head_max`] bytes.
    #[error("ICAP head too large")]
    TooLarge,
}

/// A field, by reference into the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as it was sent.
    pub name: &'b str,
    /// The value without the whitespace around it, and without control bytes other than tabs.
    pub value: &'b [u8],
}

impl<'b> Field<'b> {
    /// Whether it has this name, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    /// The elements of a comma-separated list.
    pub fn list(&self) -> impl Iterator<Item = &'b [u8]> + use<'b> {
        self.value
            .split(|&b| b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// A number in decimal digits alone.
    pub(crate) fn number(&self) -> Option<u32> {
        decimal(self.value)
    }
}

/// The fields of a head that was found well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields<'b> {
    rest: &'b [u8],
}

impl<'b> Iterator for Fields<'b> {
    type Item = Field<'b>;

    fn next(&mut self) -> Option<Field<'b>> {
        let (line, rest) = next_line(self.rest)?;
        self.rest = rest;
        field(line).ok()
    }
}

/// A head taken apart.
pub(crate) struct Head<'b> {
    pub(crate) start: &'b str,
    pub(crate) fields: Fields<'b>,
    /// Bytes that it takes.
    pub(crate) len: usize,
}

/// Looks for a head at the front of `buf`.
pub(crate) fn parse<'b>(buf: &'b [u8], limits: &Limits) -> Result<Option<Head<'b>>, HeadError> {
    let within = buf.get(..limits.head_max as usize).unwrap_or(buf);
    check_line_ends(within)?;
    let Some(end) = memchr::memmem::find(within, b"\r\n\r\n") else {
        return if buf.len() >= limits.head_max as usize {
            Err(HeadError::TooLarge)
        } else {
            Ok(None)
        };
    };
    let (start, fields) = within.get(..end + 2).and_then(next_line).ok_or(HeadError::StartLine)?;
    let start = str::from_utf8(start)
        .ok()
        .filter(|line| line.bytes().all(|b| b == b' ' || b.is_ascii_graphic()))
        .ok_or(HeadError::StartLine)?;
    let (mut rest, mut count) = (fields, 0);
    while let Some((line, after)) = next_line(rest) {
        count += 1;
        if count > limits.fields_max {
            return Err(HeadError::TooManyFields);
        }
        field(line)?;
        rest = after;
    }
    Ok(Some(Head {
        start,
        fields: Fields { rest: fields },
        len: end + 4,
    }))
}

/// Refuses line ends that others may read differently. Only what stands before the end of the head is looked at.
fn check_line_ends(bytes: &[u8]) -> Result<(), HeadError> {
    let mut from = 0;
    while let Some(at) = bytes
        .get(from..)
        .and_then(|rest| memchr::memchr2(b'\r', b'\n', rest))
        .map(|found| from + found)
    {
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b'\r'), None) => return Ok(()),
            (Some(b'\r'), Some(b'\n')) => from = at + 2,
            _ => return Err(HeadError::BareCrLf),
        }
        if bytes.get(from..from + 2) == Some(b"\r\n") {
            return Ok(());
        }
    }
    Ok(())
}

fn next_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let lf = memchr::memchr(b'\n', bytes)?;
    let line = bytes.get(..lf)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), bytes.get(lf + 1..)?))
}

fn field(line: &[u8]) -> Result<Field<'_>, HeadError> {
    let colon = memchr::memchr(b':', line).ok_or(HeadError::FieldName)?;
    let (name, value) = line.split_at_checked(colon).ok_or(HeadError::FieldName)?;
    if name.is_empty() || !name.iter().all(|&b| is_tchar(b)) {
        return Err(HeadError::FieldName);
    }
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    if !value.iter().all(|&b| b >= 0x20 && b != 0x7f || b == b'\t') {
        return Err(HeadError::FieldValue);
    }
    Ok(Field {
        name: str::from_utf8(name).map_err(|_| HeadError::FieldName)?,
        value,
    })
}

/// Whether `b` may stand in a token (RFC 9110 §5.6.2).
pub(crate) const fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// Digits alone, no overflow.
pub(crate) fn decimal(text: &[u8]) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u32, |number, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

/// Appends `name: value` CRLF.
pub(crate) fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(usize, usize)>, HeadError> {
        parse(text.as_bytes(), &Limits::default()).map(|head| head.map(|head| (head.len, head.fields.count())))
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(parsed("a b\r\nX: 1\r\nY:2\r\n\r\nrest\n"), Ok(Some((18, 2))));
        assert_eq!(parsed("a b\r\n\r\n"), Ok(Some((7, 0))));
        assert_eq!(parsed("a b\r\nX: 1\r\n"), Ok(None));
        assert_eq!(parsed(""), Ok(None));
    }

    #[test]
    fn every_beginning_of_a_head_asks_for_more() {
        let head = "OPTIONS icap://h/s ICAP/1.0\r\nHost: h\r\n\r\n";
        for len in 0..head.len() {
            assert_eq!(parsed(&head[..len]), Ok(None), "{len}");
        }
    }

    #[test]
    fn line_ends_that_can_be_read_in_two_ways_are_refused() {
        for text in ["a\nX: 1\r\n\r\n", "a\rb\r\n\r\n", "a\r\nX: 1\n\n", "\na"] {
            assert_eq!(parsed(text), Err(HeadError::BareCrLf), "{text:?}");
        }
    }

    #[test]
    fn names_and_values_are_checked() {
        assert_eq!(parsed("a\r\nX : 1\r\n\r\n"), Err(HeadError::FieldName));
        assert_eq!(parsed("a\r\n folded\r\n\r\n"), Err(HeadError::FieldName));
        assert_eq!(parsed("a\r\nX: \u{1}\r\n\r\n"), Err(HeadError::FieldValue));
        assert_eq!(parsed("\u{e4}\r\n\r\n"), Err(HeadError::StartLine));
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_all_there() {
        let many = "X: 1\r\n".repeat(65);
        assert_eq!(parsed(&format!("a\r\n{many}\r\n")), Err(HeadError::TooManyFields));
        let long = "x".repeat(8192);
        assert_eq!(parsed(&long), Err(HeadError::TooLarge));
        assert_eq!(parsed(&long[1..]), Ok(None));
    }

    #[test]
    fn numbers_are_digits_alone() {
        assert_eq!(decimal(b"0012"), Some(12));
        for text in ["", "+1", " 1", "4294967296", "1x"] {
            assert_eq!(decimal(text.as_bytes()), None, "{text}");
        }
    }
}
