//! Taking big-endian numbers and counted bytes off the front of a slice, as msgpack has them.

/// The bytes end in the middle of a value, or are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut;

/// The next `length` bytes.
pub(crate) fn split<'a>(input: &mut &'a [u8], length: usize) -> Result<&'a [u8], Cut> {
    let (front, rest) = input.split_at_checked(length).ok_or(Cut)?;
    *input = rest;
    Ok(front)
}

/// The next `N` bytes.
pub(crate) fn bytes<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Cut> {
    let (front, rest) = input.split_first_chunk::<N>().ok_or(Cut)?;
    *input = rest;
    Ok(*front)
}

/// A number of `N` bytes.
pub(crate) fn number<const N: usize>(input: &mut &[u8]) -> Result<u64, Cut> {
    let bytes = bytes::<N>(input)?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// Bytes behind a length of `N` bytes.
pub(crate) fn counted<'a, const N: usize>(input: &mut &'a [u8]) -> Result<&'a [u8], Cut> {
    counted_and::<N>(input, 0)
}

/// Bytes behind a length of `N` bytes, and `more` that it does not count: of an extension its type.
pub(crate) fn counted_and<'a, const N: usize>(input: &mut &'a [u8], more: usize) -> Result<&'a [u8], Cut> {
    let length = usize::try_from(number::<N>(input)?).map_err(|_| Cut)?;
    split(input, length.saturating_add(more))
}
