//! Replies, from both sides.

use std::net::IpAddr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{
            A, AAAA, SOA,
            opt::{EdnsCode, EdnsOption},
        },
    },
};

use super::{
    EXTENDED_ERROR_OPTION, ExtendedCode, Family, MAX_TTL, Request, ResolveError, UDP_PAYLOAD, domain_of,
    query::RawHeader,
};

/// The most aliases that are followed within one reply.
const MAX_ALIASES: usize = 16;

/// The extended error of an answer that is past its time (RFC 8914 §4.4).
const STALE_ANSWER: ExtendedCode = 3;

/// The message is not a reply that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The rest behind the header is malformed, so the query with this id has got its answer: a bad one.
    #[error("the reply to query {id} is malformed")]
    Malformed {
        /// The id of the query.
        id: u16,
    },
    /// Not a reply at all.
    #[error("not a reply")]
    NotAReply,
}

/// Who wrote a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// resolverd: its extended errors tell the failure.
    Resolverd,
    /// Any other DNS server: its extended errors explain, the response code tells.
    Server,
}

/// What a server says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The addresses in the server's order; none if the name has none of this kind (NODATA).
    pub addresses: Vec<IpAddr>,
    /// The smallest TTL of the records that lead to the addresses, aliases included, at most [`MAX_TTL`]. Without any
    /// address it is the time that the authority section allows (RFC 2308 §5), if it says.
    pub ttl: Option<u32>,
    /// Where the aliases end, if they end in no address: the server left it to us to ask for that name.
    pub alias: Option<String>,
}

/// A decoded reply.
#[derive(Clone, Debug)]
pub struct Reply(Message);

impl From<Message> for Reply {
    /// Takes a message that hickory has decoded and knows for a response.
    fn from(message: Message) -> Self {
        Self(message)
    }
}

impl Reply {
    /// Reads one message as a reply.
    ///
    /// # Errors
    /// [`ParseError::NotAReply`] if not even the header can be read or it is a query's, [`ParseError::Malformed`] if
    /// the rest is broken.
    pub fn take(message: &[u8]) -> Result<Self, ParseError> {
        let header = RawHeader::of(message).ok_or(ParseError::NotAReply)?;
        if !header.is_response {
            return Err(ParseError::NotAReply);
        }
        match Message::from_vec(message) {
            Ok(message) if message.metadata.op_code == OpCode::Query => Ok(Self(message)),
            _ => Err(ParseError::Malformed { id: header.id }),
        }
    }

    /// The number of the query that this answers.
    pub const fn id(&self) -> u16 {
        self.0.metadata.id
    }

    /// Whether the answer did not fit, so that the query shall be sent over a stream.
    pub const fn is_truncated(&self) -> bool {
        self.0.metadata.truncation
    }

    /// Whether the reply repeats this question; a failure may leave the question out.
    pub fn is_about(&self, domain: &str, family: Family) -> bool {
        match self.0.queries.as_slice() {
            [] => self.0.metadata.response_code != ResponseCode::NoError,
            [question] => question.query_type() == family.record_type() && is_name(question.name(), domain),
            _ => false,
        }
    }

    /// What the reply says of the name that it was asked for.
    ///
    /// Only records that belong to the question's name, or to the aliases that start from it, are looked at.
    ///
    /// # Errors
    /// The failure that the response code and, from our own resolverd, the extended error stand for.
    pub fn answer(&self, origin: Origin) -> Result<Answer, ResolveError> {
        let extended = match origin {
            Origin::Resolverd => self.extended_error().map(|(code, _)| code),
            Origin::Server => None,
        };
        if let Some(error) = ResolveError::of_response(self.0.metadata.response_code, extended) {
            return Err(error);
        }
        let [question] = self.0.queries.as_slice() else {
            return Err(ResolveError::BadResponse);
        };
        let family = Family::of_record_type(question.query_type()).ok_or(ResolveError::BadFamily)?;
        let (owner, alias_ttl) = self.follow_aliases(question.name());
        let mut ttl = alias_ttl;
        let mut addresses = Vec::new();
        for record in &self.0.answers {
            if let Some(address) = address_of(record, family).filter(|_| record.name == *owner) {
                addresses.push(address);
                ttl = smaller(ttl, record.ttl);
            }
        }
        if !addresses.is_empty() {
            return Ok(Answer {
                addresses,
                ttl,
                alias: None,
            });
        }
        let negative_ttl = self.negative_ttl();
        Ok(Answer {
            addresses,
            ttl: negative_ttl.map_or(alias_ttl, |ttl| smaller(alias_ttl, ttl)),
            // with an authority record the server says that there is nothing at the end (RFC 2308 §2.2)
            alias: if negative_ttl.is_none() && owner != question.name() {
                domain_of(owner)
            } else {
                None
            },
        })
    }

    /// How long the authority section allows a negative answer to be kept (RFC 2308 §5).
    pub fn negative_ttl(&self) -> Option<u32> {
        self.0.authorities.iter().find_map(|record| match &record.data {
            RData::SOA(soa) => Some(record.ttl.min(soa.minimum).min(MAX_TTL)),
            _ => None,
        })
    }

    /// The first extended error and its text (RFC 8914 §2).
    pub fn extended_error(&self) -> Option<(ExtendedCode, &str)> {
        let option = self.0.edns.as_ref()?.option(EdnsCode::from(EXTENDED_ERROR_OPTION))?;
        let EdnsOption::Unknown(_, data) = option else {
            return None;
        };
        let (code, text) = data.split_first_chunk::<2>()?;
        Some((
            ExtendedCode::from_be_bytes(*code),
            std::str::from_utf8(text).unwrap_or_default(),
        ))
    }

    /// Follows CNAME records in any order; stops at a loop.
    fn follow_aliases<'a>(&'a self, question: &'a Name) -> (&'a Name, Option<u32>) {
        let mut owner = question;
        let mut ttl = None;
        for _ in 0..MAX_ALIASES {
            let next = self.0.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(target) if record.name == *owner => Some((&target.0, record.ttl)),
                _ => None,
            });
            let Some((target, alias_ttl)) = next else {
                break;
            };
            owner = target;
            ttl = smaller(ttl, alias_ttl);
        }
        (owner, ttl)
    }
}

/// Whether `name` is `domain`, whatever the case and the final dot.
fn is_name(name: &Name, domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let mut labels = domain.split('.');
    name.iter().all(|label| {
        labels
            .next()
            .is_some_and(|other| label.eq_ignore_ascii_case(other.as_bytes()))
    }) && labels.next().is_none()
}

/// The smaller of both, within [`MAX_TTL`].
fn smaller(ttl: Option<u32>, other: u32) -> Option<u32> {
    Some(ttl.unwrap_or(MAX_TTL).min(other))
}

/// The address in `record`, if it is one of this family.
fn address_of(record: &Record, family: Family) -> Option<IpAddr> {
    match (&record.data, family) {
        (RData::A(address), Family::V4) => Some(IpAddr::V4(address.0)),
        (RData::AAAA(address), Family::V6) => Some(IpAddr::V6(address.0)),
        _ => None,
    }
}

/// What resolverd has to say of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// The addresses; none of them is NODATA.
    Addresses {
        /// The addresses, all of the wanted family.
        addresses: &'a [IpAddr],
        /// How long the asker may keep them, in seconds.
        ttl: u32,
        /// Whether they are past their time (RFC 8767).
        stale: bool,
    },
    /// Why there are none.
    Failed {
        /// The failure.
        error: ResolveError,
        /// What more a human may want to know.
        text: &'a str,
        /// How long the asker may remember that the name does not exist, in seconds.
        ttl: u32,
    },
}

/// Encodes the reply to `request` in at most `limit` bytes, without framing; a longer one is cut to a truncated reply
/// without records (RFC 2181 §9).
pub fn put_reply(request: &Request, outcome: &Outcome<'_>, limit: usize) -> Vec<u8> {
    let message = reply(request, outcome);
    match message.to_vec() {
        Ok(bytes) if bytes.len() <= limit => bytes,
        Ok(_) => message.truncate().to_vec().unwrap_or_else(|_| bare_failure(request)),
        Err(_) => bare_failure(request),
    }
}

fn reply(request: &Request, outcome: &Outcome<'_>) -> Message {
    let mut message = Message::new(request.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = request.recursion_desired;
    message.metadata.recursion_available = true;
    let mut question = hickory_proto::op::Query::query(request.name.clone(), request.family.record_type());
    question.set_query_class(hickory_proto::rr::DNSClass::IN);
    message.add_query(question);
    let (extended, negative_ttl) = match *outcome {
        Outcome::Addresses { addresses, ttl, stale } => {
            for &address in addresses {
                let data = match address {
                    IpAddr::V4(address) => RData::A(A(address)),
                    IpAddr::V6(address) => RData::AAAA(AAAA(address)),
                };
                message.add_answer(Record::from_rdata(request.name.clone(), ttl, data));
            }
            (stale.then_some((STALE_ANSWER, "")), addresses.is_empty().then_some(ttl))
        }
        Outcome::Failed { error, text, ttl } => {
            let row = error.row();
            message.metadata.response_code = row.response_code;
            (
                row.extended.map(|code| (code, text)),
                error.is_negative_answer().then_some(ttl),
            )
        }
    };
    if let Some(ttl) = negative_ttl {
        message.add_authority(authority(ttl));
    }
    if request.edns {
        message.set_edns(edns(extended));
    }
    message
}

/// The record that says how long a negative answer may be kept (RFC 2308 §3); we know no more of the zone.
fn authority(ttl: u32) -> Record {
    let soa = SOA::new(Name::root(), Name::root(), 0, 0, 0, 0, ttl);
    Record::from_rdata(Name::root(), ttl, RData::SOA(soa))
}

fn edns(extended: Option<(ExtendedCode, &str)>) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    if let Some((code, text)) = extended {
        let mut data = code.to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut()
            .insert(EdnsOption::Unknown(EXTENDED_ERROR_OPTION, data));
    }
    edns
}

/// A header that says SERVFAIL: what is left if nothing else can be encoded.
fn bare_failure(request: &Request) -> Vec<u8> {
    let [high, low] = request.id.to_be_bytes();
    vec![high, low, 0x80, 0x82, 0, 0, 0, 0, 0, 0, 0, 0]
}
