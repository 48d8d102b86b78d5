//! Queries, from both sides.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        DNSClass, Name, RecordType,
        rdata::opt::{EdnsCode, EdnsOption},
    },
};

use super::{Family, RESOLVER_OPTION, ResolveError, UDP_PAYLOAD, domain_of, name_of};

/// One question to a DNS server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The number that the reply repeats.
    pub id: u16,
    /// The name to look up.
    pub domain: &'a str,
    /// The kind of address to look for.
    pub family: Family,
    /// The resolver that shall answer; only for resolverd's own socket.
    pub resolver: Option<&'a str>,
}

/// Encodes `query` as one message, without framing.
///
/// # Errors
/// [`ResolveError::EmptyDomain`] and [`ResolveError::BadName`] as of [`name_of`], [`ResolveError::BadQuery`] if the
/// message can not be encoded.
pub fn put_query(query: &Query<'_>) -> Result<Vec<u8>, ResolveError> {
    let name = name_of(query.domain)?;
    let mut message = Message::new(query.id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(hickory_proto::op::Query::query(name, query.family.record_type()));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    if let Some(resolver) = query.resolver {
        edns.options_mut()
            .insert(EdnsOption::Unknown(RESOLVER_OPTION, resolver.as_bytes().to_vec()));
    }
    message.set_edns(edns);
    message.to_vec().map_err(|_| ResolveError::BadQuery)
}

/// What a client of resolverd asks.
#[derive(Clone, Debug)]
pub struct Request {
    /// The number that the reply repeats.
    pub id: u16,
    /// The question's name as it came, for the reply to repeat.
    pub(super) name: Name,
    /// The name in lower case, without the final dot.
    pub domain: String,
    /// The kind of address that is wanted.
    pub family: Family,
    /// The resolver that is named in [`RESOLVER_OPTION`].
    pub resolver: Option<String>,
    /// The UDP payload that the client takes: 512 bytes without EDNS.
    pub payload: u16,
    /// Whether the query had an EDNS record, so that the reply may have one.
    pub(super) edns: bool,
    pub(super) recursion_desired: bool,
}

/// A message that is not a query we answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// No query at all, such as a response or a fragment: nothing is sent back.
    #[error("not a query")]
    Ignored,
    /// A query that gets this reply.
    #[error("a query that is answered with {code}")]
    Answered {
        /// The response code of the reply.
        code: ResponseCode,
        /// The encoded reply.
        reply: Vec<u8>,
    },
}

impl Request {
    /// Reads one message as a query for addresses.
    ///
    /// # Errors
    /// [`Rejected`] holds the reply to what is not such a query: FORMERR for a malformed one, NOTIMP for other
    /// operations and record types, REFUSED for other classes, BADVERS for an unknown EDNS version.
    pub fn take(message: &[u8]) -> Result<Self, Rejected> {
        let header = RawHeader::of(message).ok_or(Rejected::Ignored)?;
        if header.is_response {
            return Err(Rejected::Ignored);
        }
        if header.op_code != OpCode::Query {
            return Err(header.reject(ResponseCode::NotImp, None, false));
        }
        let Ok(message) = Message::from_vec(message) else {
            return Err(header.reject(ResponseCode::FormErr, None, false));
        };
        let reject = |code, question| Err(header.reject(code, question, message.edns.is_some()));
        let [question] = message.queries.as_slice() else {
            return reject(ResponseCode::FormErr, None);
        };
        if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
            return reject(ResponseCode::BADVERS, Some(question));
        }
        if question.query_class() != DNSClass::IN {
            return reject(ResponseCode::Refused, Some(question));
        }
        let Some(family) = Family::of_record_type(question.query_type()) else {
            return reject(not_for_addresses(question.query_type()), Some(question));
        };
        let Some(domain) = domain_of(question.name()) else {
            return reject(ResponseCode::FormErr, Some(question));
        };
        let edns = message.edns.as_ref();
        Ok(Self {
            id: header.id,
            name: question.name().clone(),
            domain,
            family,
            resolver: match edns.and_then(|edns| edns.option(EdnsCode::from(RESOLVER_OPTION))) {
                Some(EdnsOption::Unknown(_, name)) => match std::str::from_utf8(name) {
                    Ok(name) => Some(name.to_owned()),
                    Err(_) => return reject(ResponseCode::FormErr, Some(question)),
                },
                _ => None,
            },
            payload: edns.map_or(512, |edns| edns.max_payload().max(512)),
            edns: edns.is_some(),
            recursion_desired: message.metadata.recursion_desired,
        })
    }
}

/// The response code for a record type that holds no addresses.
const fn not_for_addresses(record_type: RecordType) -> ResponseCode {
    match record_type {
        RecordType::AXFR | RecordType::IXFR => ResponseCode::Refused,
        _ => ResponseCode::NotImp,
    }
}

/// The parts of a header that a reply needs even if the rest of the message can not be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawHeader {
    pub(super) id: u16,
    pub(super) is_response: bool,
    op_code: OpCode,
    recursion_desired: bool,
}

impl RawHeader {
    /// Reads the first bytes of a header (RFC 1035 §4.1.1); `None` if there is no whole header.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let [id_high, id_low, flags, ..] = *message.first_chunk::<12>()?;
        Some(Self {
            id: u16::from_be_bytes([id_high, id_low]),
            is_response: flags & 0x80 != 0,
            op_code: OpCode::from_u8((flags >> 3) & 0x0f),
            recursion_desired: flags & 0x01 != 0,
        })
    }

    /// The reply that says `code`; with an EDNS record if the query had one (RFC 6891 §7).
    fn reject(&self, code: ResponseCode, question: Option<&hickory_proto::op::Query>, edns: bool) -> Rejected {
        let mut message = Message::error_msg(self.id, self.op_code, code);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.recursion_available = true;
        if let Some(question) = question {
            message.add_query(question.clone());
        }
        if edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            message.set_edns(edns);
        }
        match message.to_vec() {
            Ok(reply) => Rejected::Answered { code, reply },
            Err(_) => Rejected::Ignored,
        }
    }
}
