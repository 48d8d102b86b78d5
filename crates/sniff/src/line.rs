//! Pieces that recognisers are made of.

use crate::Verdict;

/// Whether `bytes` begin with `start`: `Some(rest)` if so, else what that means. Too few bytes ask for more.
pub(crate) fn after<'a>(bytes: &'a [u8], start: &[u8]) -> Result<&'a [u8], Verdict> {
    match bytes.strip_prefix(start) {
        Some(rest) => Ok(rest),
        None if start.starts_with(bytes) => Err(Verdict::More),
        None => Err(Verdict::Not),
    }
}

/// The first line without its end, of at most `limit` bytes with it.
pub(crate) fn first(bytes: &[u8], limit: usize) -> Result<&[u8], Verdict> {
    let within = bytes.get(..limit).unwrap_or(bytes);
    match within.iter().position(|&byte| byte == b'\n') {
        Some(at) => {
            let line = within.get(..at).unwrap_or_default();
            Ok(line.strip_suffix(b"\r").unwrap_or(line))
        }
        None if bytes.len() >= limit => Err(Verdict::Not),
        None => Err(Verdict::More),
    }
}

/// Whether `line` holds `word` in any case.
pub(crate) fn holds(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// The first `N` bytes as an array, or more are needed.
pub(crate) fn take<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), Verdict> {
    match bytes.split_first_chunk::<N>() {
        Some((head, rest)) => Ok((*head, rest)),
        None => Err(Verdict::More),
    }
}

/// Takes the verdict out of either side.
pub(crate) fn either(result: Result<Verdict, Verdict>) -> Verdict {
    result.unwrap_or_else(|verdict| verdict)
}
