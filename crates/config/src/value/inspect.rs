//! What the inspection of streams is told.

mod interception;
mod portmap;
mod settings;

pub use interception::{H1Interception, H2Interception, ImapInterception, SmtpInterception, TlsInterceptionServer};
pub use portmap::{ClientPortmap, MaybeProtocol, Protocol, ServerPortmap};
pub use settings::{InspectAction, InspectionSizeLimit, ProtocolInspection, StreamDump, TlsCertAgent};
