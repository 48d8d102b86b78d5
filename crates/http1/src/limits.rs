//! What a peer may make us hold and accept.

/// The most fields of a head that are parsed without touching the heap.
pub(crate) const FIELDS_ON_STACK: usize = 96;

/// Bounds and choices for parsing one side's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one head: start line, fields and the empty line after them. Default 64 KiB.
    ///
    /// Also the bound for all trailers of one body together.
    pub head_max: u32,
    /// Fields of one head. Default 512; up to 96 are parsed without an allocation.
    pub fields_max: u16,
    /// Bytes of one chunk-size or trailer line, its CRLF included. Default 8192.
    pub body_line_max: u32,
    /// Whether an HTTP/1.1 request without a Host field is refused (RFC 9112 §3.2). Default `false`: a proxy needs none
    /// for a target in absolute-form or authority-form.
    pub require_host: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_max: 64 * 1024,
            fields_max: 512,
            body_line_max: 8192,
            require_host: false,
        }
    }
}
