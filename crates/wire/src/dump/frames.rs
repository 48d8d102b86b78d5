//! Where frames of HTTP/2 end (RFC 9113 §4.1): readers of exported PDUs put no frames together.

/// What a client begins with (§3.4) is as long as this.
const PREFACE: usize = 24;

/// The head of a frame.
const HEAD: usize = 9;

/// How far one direction is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Frames {
    /// Bytes that are missing of a frame whose head is there.
    left: usize,
    /// The front of a head.
    head: [u8; HEAD],
    length: usize,
    /// Something has passed.
    began: bool,
}

impl Frames {
    /// Of a client, whose preface counts as a frame.
    pub(super) fn of_client() -> Self {
        Self {
            left: PREFACE,
            ..Self::default()
        }
    }

    /// Whether a part of a frame has passed, and not all of it.
    pub(super) fn is_inside(&self) -> bool {
        self.began && !self.is_between()
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.length == 0
    }

    /// Goes over `data`.
    pub(super) fn pass(&mut self, mut data: &[u8]) {
        self.began |= !data.is_empty();
        while !data.is_empty() {
            data = self.step(data);
        }
    }

    /// The length of the longest front of `data` that ends where a frame does; 0 if there is none.
    pub(super) fn whole(&self, data: &[u8]) -> usize {
        let (mut frames, mut rest, mut end) = (*self, data, 0);
        while !rest.is_empty() {
            rest = frames.step(rest);
            if frames.is_between() {
                end = data.len() - rest.len();
            }
        }
        end
    }

    /// Goes to the end of a head or a frame, and gives what follows.
    fn step<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        if self.left > 0 {
            let (passed, rest) = data.split_at(data.len().min(self.left));
            self.left -= passed.len();
            return rest;
        }
        let (passed, rest) = data.split_at(data.len().min(HEAD - self.length));
        let free = self.head.iter_mut().skip(self.length);
        free.zip(passed).for_each(|(to, from)| *to = *from);
        self.length += passed.len();
        if self.length == HEAD {
            let [high, middle, low, ..] = self.head;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            self.length = 0;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of these lengths, and where each ends.
    fn stream(lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let mut out = vec![b'P'; PREFACE];
        let mut ends = vec![PREFACE];
        for length in lengths {
            out.extend_from_slice(&u32::try_from(*length).unwrap().to_be_bytes()[1..]);
            out.extend_from_slice(&[0; 6]);
            out.resize(out.len() + length, 0xff);
            ends.push(out.len());
        }
        (out, ends)
    }

    #[test]
    fn ends_of_frames_are_found_wherever_pieces_begin_and_end() {
        let (data, ends) = stream(&[0, 5, 0, 0, 300, 1]);
        for cut in 0..=data.len() {
            let mut frames = Frames::of_client();
            let last = |upto: usize| ends.iter().rev().find(|end| **end <= upto).copied().unwrap_or_default();
            assert_eq!(frames.whole(&data[..cut]), last(cut), "{cut}");
            frames.pass(&data[..cut]);
            assert_eq!(frames.is_inside(), cut > 0 && !ends.contains(&cut), "{cut}");
            assert_eq!(cut + frames.whole(&data[cut..]), data.len(), "{cut}");
        }
    }
}
