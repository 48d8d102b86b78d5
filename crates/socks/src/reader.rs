//! Takes fields off the front of a buffer that may not be complete yet.

/// Why a message is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop<E> {
    /// The bytes end before the message does.
    More,
    /// No bytes that follow can make a message of them.
    Fault(E),
}

/// The buffer ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

impl<E> From<Short> for Stop<E> {
    fn from(_: Short) -> Self {
        Self::More
    }
}

impl<E> Stop<E> {
    /// The same, with a fault of a larger kind.
    pub(crate) fn map<F>(self, fault: impl FnOnce(E) -> F) -> Stop<F> {
        match self {
            Self::More => Stop::More,
            Self::Fault(why) => Stop::Fault(fault(why)),
        }
    }
}

/// The part of a buffer that has not been read.
#[derive(Debug)]
pub(crate) struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    pub(crate) fn new(buf: &'b [u8]) -> Self {
        Self { rest: buf }
    }

    /// What has not been read.
    pub(crate) fn rest(&self) -> &'b [u8] {
        self.rest
    }

    /// Takes one byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Short> {
        self.array().map(|[byte]| byte)
    }

    /// Takes a number of two bytes.
    pub(crate) fn port(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    /// Takes `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Short)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes `len` bytes.
    pub(crate) fn slice(&mut self, len: usize) -> Result<&'b [u8], Short> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes bytes that are preceded by their number.
    pub(crate) fn counted(&mut self) -> Result<&'b [u8], Short> {
        let len = self.byte()?;
        self.slice(len.into())
    }

    /// Takes at most `max` bytes and the NUL that ends them; the fault is `too_long` once that NUL cannot come any more.
    pub(crate) fn until_nul<E>(&mut self, max: usize, too_long: E) -> Result<&'b [u8], Stop<E>> {
        match self.rest.iter().take(max + 1).position(|&byte| byte == 0) {
            Some(len) => {
                let taken = self.slice(len)?;
                self.slice(1)?;
                Ok(taken)
            }
            None if self.rest.len() > max => Err(Stop::Fault(too_long)),
            None => Err(Stop::More),
        }
    }
}

/// Reads a message off the front of `buf` and counts its bytes.
pub(crate) fn read<'b, T, E>(
    buf: &'b [u8],
    message: impl FnOnce(&mut Reader<'b>) -> Result<T, Stop<E>>,
) -> Result<Option<(T, usize)>, E> {
    let mut reader = Reader::new(buf);
    match message(&mut reader) {
        Ok(message) => Ok(Some((message, buf.len() - reader.rest.len()))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}
