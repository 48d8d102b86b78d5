//! Header fields (RFC 9110 §5): names that mean something to a proxy, lists, and which lines go on.

use std::str;

/// A field of a parsed head, by reference into the read buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// The name as it was sent; compare it with [`str::eq_ignore_ascii_case`].
    pub name: &'b str,
    /// The value without the whitespace around it. May hold bytes above 0x7f, never a control byte other than a tab.
    pub value: &'b [u8],
    /// Whether the writer keeps this line back: hop-by-hop, framing, or removed by the caller.
    pub stays: bool,
}

/// The fields of a head that has been found well formed: each line is `name:OWS value OWS CRLF`.
#[derive(Clone, Debug)]
pub struct Fields<'b> {
    head: &'b [u8],
    at: usize,
    end: usize,
    cuts: Cuts,
}

impl<'b> Fields<'b> {
    pub(crate) fn new(head: &'b [u8], start: u32, cuts: &Cuts) -> Self {
        // The two last bytes are the CRLF of the empty line.
        Self {
            head,
            at: start as usize,
            end: head.len().saturating_sub(2),
            cuts: cuts.clone(),
        }
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = Field<'b>;

    fn next(&mut self) -> Option<Field<'b>> {
        let line = next_line(self.head, self.at, self.end)?;
        let stays = self.cuts.contains(self.at);
        self.at = line.end;
        Some(Field {
            name: str::from_utf8(line.name).unwrap_or_default(),
            value: line.value,
            stays,
        })
    }
}

/// One line of the field block.
pub(crate) struct Line<'b> {
    pub(crate) name: &'b [u8],
    pub(crate) value: &'b [u8],
    /// Where the next line starts.
    pub(crate) end: usize,
}

/// The line that starts at `at` in a well-formed field block ending at `end`.
pub(crate) fn next_line(head: &[u8], at: usize, end: usize) -> Option<Line<'_>> {
    let rest = head.get(at..end)?;
    let lf = memchr::memchr(b'\n', rest)?;
    let line = rest.get(..lf)?;
    let colon = memchr::memchr(b':', line)?;
    Some(Line {
        name: line.get(..colon)?,
        value: line.get(colon + 1..)?.trim_ascii(),
        end: at + lf + 1,
    })
}

/// Where `part` lies in `whole`, of which it is a slice.
pub(crate) fn offset(whole: &[u8], part: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// A field that a proxy has to understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Authorization,
    Connection,
    ContentLength,
    Expect,
    Host,
    /// Hop-by-hop and of no use to us.
    HopByHop,
    ProxyAuthorization,
    ProxyConnection,
    Te,
    TransferEncoding,
    Upgrade,
}

/// What `name` means to a proxy; `None` for a field that is passed on unread.
///
/// Decided by length first: most fields of a real request leave at the first branch.
#[inline]
pub(crate) fn known(name: &[u8]) -> Option<Known> {
    Some(match name.len() {
        2 if is(name, b"te") => Known::Te,
        4 if is(name, b"host") => Known::Host,
        6 if is(name, b"expect") => Known::Expect,
        7 if is(name, b"upgrade") => Known::Upgrade,
        10 if is(name, b"connection") => Known::Connection,
        10 if is(name, b"keep-alive") => Known::HopByHop,
        13 if is(name, b"authorization") => Known::Authorization,
        14 if is(name, b"content-length") => Known::ContentLength,
        16 if is(name, b"proxy-connection") => Known::ProxyConnection,
        17 if is(name, b"transfer-encoding") => Known::TransferEncoding,
        18 if is(name, b"proxy-authenticate") => Known::HopByHop,
        19 if is(name, b"proxy-authorization") => Known::ProxyAuthorization,
        25 if is(name, b"proxy-authentication-info") => Known::HopByHop,
        _ => return None,
    })
}

/// Whether `text` is `lower`, of lower-case letters, digits and hyphens, in any case.
///
/// Exact only for text without control bytes, of which httparse leaves none but the tab: 0x20 is set in all other bytes
/// that may stand in `lower`'s place, or they are upper-case letters. No branch per byte, so it takes a word at a time.
#[inline]
pub(crate) fn is<const N: usize>(text: &[u8], lower: &[u8; N]) -> bool {
    let Ok(text) = <&[u8; N]>::try_from(text) else {
        return false;
    };
    text.iter()
        .zip(lower)
        .fold(0, |differs, (&b, &l)| differs | ((b | 0x20) ^ l))
        == 0
}

/// Fields that a `Connection` option can never make hop-by-hop: removing one would change the message's framing, its
/// routing, who sends it or how it is read (RFC 9110 §7.6.1), which is what `Connection: authorization` attacks want.
pub(crate) fn is_protected(name: &[u8]) -> bool {
    const PROTECTED: &[&[u8]] = &[
        b"age",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"location",
        b"max-forwards",
        b"origin",
        b"range",
        b"set-cookie",
        b"trailer",
        b"transfer-encoding",
        b"vary",
        b"via",
        b"www-authenticate",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    ];
    PROTECTED.iter().any(|protected| name.eq_ignore_ascii_case(protected))
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), empty ones left out.
///
/// Splits at every comma: right for the lists read here, whose elements hold no quoted commas in any valid message.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether `bytes` is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// Whether `b` may stand in a token.
#[inline]
#[expect(clippy::indexing_slicing, reason = "a u8 is always below 256")]
pub(crate) const fn is_tchar(b: u8) -> bool {
    TCHAR[b as usize]
}

const TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0u8;
    while b < 128 {
        #[expect(clippy::indexing_slicing, reason = "a u8 is always below 256")]
        {
            table[b as usize] = b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                );
        }
        b += 1;
    }
    table
};

/// Whether `b` may stand in a field value: HTAB, SP, VCHAR or obs-text.
#[inline]
pub(crate) const fn is_value_byte(b: u8) -> bool {
    b >= 0x20 && b != 0x7f || b == b'\t'
}

/// A Content-Length: digits alone, no sign, no list, no overflow (RFC 9110 §8.6).
pub(crate) fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |length, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        length.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Writes `n` in decimal.
pub(crate) fn put_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut used = 0;
    for slot in digits.iter_mut().rev() {
        *slot = b'0' + (n % 10) as u8;
        used += 1;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

/// Byte ranges of a head that the writer leaves out, in order and apart; whole lines always.
///
/// Kept runs are copied in one piece each, so the cost of forwarding depends on the number of cuts, not of fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cuts {
    inline: [(u32, u32); Self::INLINE],
    used: u8,
    /// All ranges, once they are too many for `inline`.
    spilled: Vec<(u32, u32)>,
}

impl Cuts {
    const INLINE: usize = 8;

    pub(crate) fn as_slice(&self) -> &[(u32, u32)] {
        if self.spilled.is_empty() {
            self.inline.get(..usize::from(self.used)).unwrap_or_default()
        } else {
            &self.spilled
        }
    }

    /// Cuts `start..end`, a line not before any that is cut already. Joins lines that touch.
    #[inline]
    pub(crate) fn push(&mut self, start: u32, end: u32) {
        let last = if self.spilled.is_empty() {
            usize::from(self.used)
                .checked_sub(1)
                .and_then(|last| self.inline.get_mut(last))
        } else {
            self.spilled.last_mut()
        };
        match last {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.append((start, end)),
        }
    }

    fn append(&mut self, range: (u32, u32)) {
        if self.spilled.is_empty() {
            if let Some(slot) = self.inline.get_mut(usize::from(self.used)) {
                *slot = range;
                self.used += 1;
                return;
            }
            self.spilled.extend_from_slice(&self.inline);
        }
        self.spilled.push(range);
    }

    /// Cuts the line `start..end` wherever it stands; a line that is cut already stays so.
    pub(crate) fn insert(&mut self, start: u32, end: u32) {
        if self.contains(start as usize) {
            return;
        }
        let at = self.as_slice().partition_point(|range| range.0 < start);
        self.append((start, end));
        let all = if self.spilled.is_empty() {
            self.inline.get_mut(..usize::from(self.used)).unwrap_or_default()
        } else {
            &mut self.spilled
        };
        if let Some(tail) = all.get_mut(at..) {
            tail.rotate_right(1);
        }
    }

    /// Whether the line that starts at `at` is cut.
    pub(crate) fn contains(&self, at: usize) -> bool {
        self.as_slice()
            .iter()
            .any(|&(start, end)| (start as usize..end as usize).contains(&at))
    }

    /// Copies `head[start..end]` without the cut ranges to `out`.
    #[inline]
    pub(crate) fn copy_kept(&self, head: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
        let mut at = start;
        for &(cut, resume) in self.as_slice() {
            out.extend_from_slice(head.get(at..cut as usize).unwrap_or_default());
            at = resume as usize;
        }
        out.extend_from_slice(head.get(at..end).unwrap_or_default());
    }
}

/// A field that cannot be written as given: its name is no token, or its value holds a control byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a header field: bad name or control bytes in the value")]
pub struct InvalidField;

/// Appends the line `name: value` CRLF, for use as an extra line of the writers.
///
/// # Errors
/// [`InvalidField`] if the line would not be exactly one field; nothing is appended then.
pub fn put_field(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), InvalidField> {
    if !is_token(name.as_bytes()) || !value.iter().all(|&b| is_value_byte(b)) {
        return Err(InvalidField);
    }
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.trim_ascii());
    out.extend_from_slice(b"\r\n");
    Ok(())
}
