//! HTTP/1 body framing for a pump.

use sluice_http1::{BodyError, BodyFraming, BodyScanner, Limits};
use sluice_io::pump::Framing;

/// A body that passes through: checked against its framing, not changed.
pub(crate) struct Body {
    scanner: BodyScanner,
    framing: BodyFraming,
}

impl Body {
    pub(crate) fn new(framing: BodyFraming, limits: &Limits) -> Self {
        Self {
            scanner: BodyScanner::new(framing, limits),
            framing,
        }
    }
}

impl Framing for Body {
    type Error = BodyError;

    fn blind(&self) -> u64 {
        self.scanner.opaque()
    }

    fn remaining(&self) -> Option<u64> {
        matches!(self.framing, BodyFraming::Length(_)).then(|| self.scanner.opaque())
    }

    fn admit(&mut self, bytes: &[u8]) -> Result<usize, BodyError> {
        Ok(self.scanner.scan(bytes)?.forward)
    }

    fn passed(&mut self, n: u64) {
        self.scanner.skip(n);
    }

    fn is_complete(&self) -> bool {
        self.scanner.is_done()
    }

    fn may_end(&self) -> bool {
        self.scanner.finish().is_ok()
    }
}
