//! Frames in a stream of bytes.

/// The head of a frame (RFC 9113 §4.1).
pub(crate) const HEAD: usize = 9;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;

/// The beginning of a frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameHead {
    /// Of what follows.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
}

impl FrameHead {
    fn parse(&[a, b, c, kind, flags, ..]: &[u8; HEAD]) -> Self {
        Self {
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            kind,
            flags,
        }
    }

    /// Of those with a size of their own (RFC 9113 §6.3 to §6.9).
    pub(crate) fn has_right_size(self) -> bool {
        match self.kind {
            PRIORITY => self.length == 5,
            RST_STREAM | WINDOW_UPDATE => self.length == 4,
            SETTINGS if self.flags & ACK != 0 => self.length == 0,
            SETTINGS => self.length.is_multiple_of(6),
            PING => self.length == 8,
            GOAWAY => self.length >= 8,
            _ => true,
        }
    }
}

/// Finds frames in bytes that come in any pieces.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes until the next frame begins.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of `head` so far; fewer than it has.
    have: usize,
}

impl Frames {
    pub(crate) fn behind(skip: usize) -> Self {
        Self {
            skip,
            ..Self::default()
        }
    }

    /// Tells `each` of every frame whose head ends in `bytes`.
    ///
    /// # Errors
    /// Its error, and how many of `bytes` come before that frame.
    pub(crate) fn follow<E>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(FrameHead) -> Result<(), E>,
    ) -> Result<(), (usize, E)> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(rest.len());
                self.skip -= skipped;
                rest = rest.get(skipped..).unwrap_or_default();
                continue;
            }
            let begin = bytes.len() - rest.len();
            let wanted = self.head.get_mut(self.have..).unwrap_or_default();
            let n = wanted.len().min(rest.len());
            let (taken, behind) = rest.split_at(n);
            if let Some(wanted) = wanted.get_mut(..n) {
                wanted.copy_from_slice(taken);
            }
            self.have += n;
            rest = behind;
            if self.have == HEAD {
                self.have = 0;
                let head = FrameHead::parse(&self.head);
                self.skip = head.length;
                each(head).map_err(|error| (begin, error))?;
            }
        }
        Ok(())
    }
}
