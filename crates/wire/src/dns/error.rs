//! Why a name has no address: the one table of names and codes.

use hickory_proto::op::ResponseCode;

/// Why a lookup gave no addresses.
///
/// Each variant is a row of one table ([`ResolveError::row`]): what it is on the wire, in the Resolve log and in the
/// metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResolveError {
    /// The resolver can not ask for this record type.
    #[error("the resolver can not query this record type")]
    BadFamily,
    /// The domain can not be written as a DNS name.
    #[error("not a valid domain name")]
    BadName,
    /// The query could not be built.
    #[error("the query could not be built")]
    BadQuery,
    /// What came back from the server is not an answer to the query.
    #[error("the name server sent a malformed answer")]
    BadResponse,
    /// No name server accepted a connection or a packet.
    #[error("the name server refused the connection")]
    ConnectionRefused,
    /// The resolver gave neither answer nor error within the time it is given.
    #[error("the resolver did not answer in time")]
    DriverTimedOut,
    /// There is no domain to look up.
    #[error("the domain name is empty")]
    EmptyDomain,
    /// The name exists, but has no address of the wanted kind.
    #[error("the name has no such address")]
    EmptyResult,
    /// The server found the query malformed.
    #[error("the name server answered FORMERR")]
    FormErr,
    /// The resolver failed by itself.
    #[error("internal resolver error")]
    Internal,
    /// There is no running resolver of that name, or it can not be reached.
    #[error("the resolver is not running")]
    NoResolverRunning,
    /// No resolver may be asked here.
    #[error("no resolver is set for this")]
    NoResolverSet,
    /// The name does not exist.
    #[error("the name does not exist")]
    NotFound,
    /// The server does not know this kind of query.
    #[error("the name server answered NOTIMP")]
    NotImp,
    /// The server refused to answer.
    #[error("the name server answered REFUSED")]
    Refused,
    /// The server failed.
    #[error("the name server answered SERVFAIL")]
    ServFail,
    /// No name server answered in time.
    #[error("the name server did not answer in time")]
    Timeout,
    /// Anything else, such as a response code that no row names.
    #[error("unexpected resolver error")]
    Unexpected,
}

/// An extended DNS error code (RFC 8914 §4; 49152 and up are for private use).
pub type ExtendedCode = u16;

/// One row of the table: all the names of a [`ResolveError`].
#[derive(Debug)]
pub struct Row {
    /// The failure.
    pub error: ResolveError,
    /// `error_type` of a Resolve record.
    pub error_type: &'static str,
    /// `error_subtype` of a Resolve record; empty where there is none.
    pub error_subtype: &'static str,
    /// The response code of an answer that carries it.
    pub response_code: ResponseCode,
    /// The extended error that tells it from the others with the same response code.
    pub extended: Option<ExtendedCode>,
    /// The metric below `resolver.query.` that counts it.
    pub metric: Option<&'static str>,
}

/// Writes the table as a `match`, so that a variant without a row does not compile.
macro_rules! table {
    ($($error:ident: $type:literal $subtype:literal $code:ident $extended:expr, $metric:expr;)*) => {
        impl ResolveError {
            /// All failures, one a row.
            pub const ALL: &'static [Self] = &[$(Self::$error),*];

            /// All the names of this failure.
            pub const fn row(self) -> &'static Row {
                match self {$(
                    Self::$error => &Row {
                        error: Self::$error,
                        error_type: $type,
                        error_subtype: $subtype,
                        response_code: ResponseCode::$code,
                        extended: $extended,
                        metric: $metric,
                    },
                )*}
            }
        }
    };
}

table! {
    BadFamily:         "DriverError" "BadFamily"            ServFail Some(21),    Some("driver.malformed"); // Not Supported
    BadName:           "DriverError" "BadName"              FormErr  Some(49152), Some("driver.malformed");
    BadQuery:          "DriverError" "BadQuery"             FormErr  Some(49153), Some("driver.malformed");
    BadResponse:       "DriverError" "BadResp"              ServFail Some(24),    Some("driver.malformed"); // Invalid Data
    ConnectionRefused: "DriverError" "ConnRefused"          ServFail Some(23),    Some("driver.refused");   // Network Error
    DriverTimedOut:    "LocalError"  "DriverTimedOut"       ServFail Some(49154), Some("driver.timeout");
    EmptyDomain:       "EmptyDomain" ""                     FormErr  Some(49155), None;
    EmptyResult:       "EmptyResult" ""                     NoError  None,        None;
    FormErr:           "ServerError" "FORMERR"              FormErr  None,        Some("server.malformed");
    Internal:          "DriverError" "InternalError"        ServFail Some(0),     None;                     // Other Error
    NoResolverRunning: "LocalError"  "NoResolverRunning"    ServFail Some(14),    None;                     // Not Ready
    NoResolverSet:     "LocalError"  "NoResolverSet"        Refused  Some(18),    None;                     // Prohibited
    NotFound:          "ServerError" "NOTFOUND"             NXDomain None,        Some("server.not_found");
    NotImp:            "ServerError" "NOTIMP"               NotImp   None,        None;
    Refused:           "ServerError" "REFUSED"              Refused  None,        Some("server.refused");
    ServFail:          "ServerError" "SERVFAIL"             ServFail None,        Some("server.serv_fail");
    Timeout:           "DriverError" "Timeout"              ServFail Some(22),    Some("driver.timeout");   // No Reachable Authority
    Unexpected:        "UnexpectedError" ""                 ServFail Some(49156), None;
}

impl ResolveError {
    /// The failure that a response code and an extended error stand for; `None` for success.
    ///
    /// Pass no `extended` code for what came from a server that is not ours: there the codes explain, but do not tell
    /// what the server did.
    pub fn of_response(code: ResponseCode, extended: Option<ExtendedCode>) -> Option<Self> {
        if code == ResponseCode::NoError {
            return None;
        }
        let with = |extended| {
            Self::ALL
                .iter()
                .map(|error| error.row())
                .find(|row| row.response_code == code && row.extended == extended)
        };
        let row = extended.and_then(|code| with(Some(code))).or_else(|| with(None));
        Some(row.map_or(Self::Unexpected, |row| row.error))
    }

    /// Whether the name is known to be without addresses, rather than not known at all: such an answer may be cached.
    pub const fn is_negative_answer(self) -> bool {
        matches!(self, Self::EmptyResult | Self::NotFound)
    }
}
