//! Heads that arrive in pieces.

/// Says when it is worth parsing a head again that was not complete the last time.
///
/// A client that sends one byte at a time would otherwise have its head parsed from the start for each. Each byte is looked
/// at once here; [`parse_request`](crate::parse_request) and [`parse_response`](crate::parse_response) run again only when a
/// line has ended that can be the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Partial {
    looked_at: usize,
}

impl Partial {
    /// Whether to parse now. `buf` holds the head from its start, `head_max` is the limit's.
    pub fn is_worth_parsing(&mut self, buf: &[u8], head_max: u32) -> bool {
        let from = self.looked_at;
        self.looked_at = buf.len();
        let new = buf.get(from..).unwrap_or_default();
        // The first look finds most heads complete, or plainly wrong.
        from == 0
            || buf.len() >= head_max as usize
            || memchr::memchr_iter(b'\n', new).any(|at| Self::may_end_head(buf, from + at))
    }

    /// Whether the LF at `at` ends an empty line, or a line that will be refused.
    fn may_end_head(buf: &[u8], at: usize) -> bool {
        !matches!(buf.get(at.saturating_sub(2)..at), Some([before, b'\r']) if !matches!(before, b'\r' | b'\n'))
    }
}

#[cfg(test)]
mod tests {
    use super::Partial;

    #[test]
    fn a_head_in_single_bytes_is_parsed_at_its_start_and_at_its_end() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n";
        let mut partial = Partial::default();
        let worth: Vec<_> = (1..=head.len())
            .filter(|&len| partial.is_worth_parsing(&head[..len], 65536))
            .collect();
        assert_eq!(worth, [1, head.len()]);
    }

    #[test]
    fn a_bare_lf_is_parsed_at_once() {
        let mut partial = Partial::default();
        assert!(partial.is_worth_parsing(b"GET / HTT", 65536));
        assert!(!partial.is_worth_parsing(b"GET / HTTP/1.1\r\n", 65536));
        assert!(partial.is_worth_parsing(b"GET / HTTP/1.1\r\nHost: a\n", 65536));
    }

    #[test]
    fn a_second_cr_before_a_lf_is_parsed_at_once() {
        let mut partial = Partial::default();
        assert!(partial.is_worth_parsing(b"GET / HTTP/1.1\r\n", 65536));
        assert!(partial.is_worth_parsing(b"GET / HTTP/1.1\r\n\r\r\n", 65536));
    }

    #[test]
    fn a_full_buffer_is_parsed() {
        let mut partial = Partial::default();
        assert!(partial.is_worth_parsing(b"GET /", 8));
        assert!(partial.is_worth_parsing(b"GET /aaa", 8));
    }
}
