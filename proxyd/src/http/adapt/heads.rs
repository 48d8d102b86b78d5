//! Heads that services have made, as they go on.

use sluice_http1::{
    Awaits, BodyFraming, BodyOut, Connection, ForwardRequest, HostLine, Limits, RequestHead, ResponseHead, Target,
    TargetLine, parse_request, parse_response, put_field,
};

use crate::error::TaskError;
use crate::icap::IcapError;

/// Bounds for heads that were parsed once already, or that a service has made.
pub(crate) const OWN: Limits = Limits {
    head_max: 256 * 1024,
    fields_max: 1024,
    body_line_max: 8192,
    require_host: false,
};

/// The final response head that a service has made.
pub(crate) fn final_head(bytes: &[u8], awaits: Awaits) -> Result<ResponseHead<'_>, TaskError> {
    let unfit = |text: String| TaskError::from(IcapError::UnfitResponse(text));
    parse_response(bytes, &OWN, awaits)
        .map_err(|error| unfit(error.to_string()))?
        .filter(|head| head.status >= 200)
        .ok_or_else(|| unfit("no final head".to_owned()))
}

/// A request head to send, and what belongs to it.
pub(super) struct AdaptedRequest {
    pub(super) head: Vec<u8>,
    pub(super) framing: BodyFraming,
    pub(super) awaits: Awaits,
    /// Field lines that REQMOD has given for RESPMOD.
    pub(super) shared: Vec<u8>,
}

/// The head that a service has made of `original`, with the fields of our own hop.
pub(super) fn adapted_request(
    bytes: &[u8],
    original: &RequestHead<'_>,
    has_body: bool,
) -> Result<AdaptedRequest, TaskError> {
    let unfit = |text: String| TaskError::from(IcapError::UnfitRequest(text));
    let mut head = parse_request(bytes, &OWN)
        .map_err(|error| unfit(error.to_string()))?
        .ok_or_else(|| unfit("an unfinished head".to_owned()))?;
    head.framing = match (has_body, head.framing) {
        (true, BodyFraming::Length(length)) => BodyFraming::Length(length),
        (true, _) => BodyFraming::Chunked,
        (false, BodyFraming::Length(_)) => BodyFraming::Length(0),
        (false, _) => BodyFraming::None,
    };
    if (head.method.awaits() == Awaits::Connect) != (original.method.awaits() == Awaits::Connect) {
        return Err(unfit("another kind of request".to_owned()));
    }
    Ok(AdaptedRequest {
        head: forward_request(&head, original),
        framing: head.framing,
        awaits: head.method.awaits(),
        shared: Vec::new(),
    })
}

/// A head to send in the place of `original`: its target as the origin knows it, with the original's fields of this hop.
pub(super) fn forward_request(head: &RequestHead<'_>, original: &RequestHead<'_>) -> Vec<u8> {
    let mut extra = Vec::new();
    let mut connection = if original.keep_alive {
        Connection::Implied
    } else {
        Connection::Close
    };
    if let Some(protocol) = original.upgrade {
        connection = Connection::Upgrade;
        if head.upgrade.is_none() {
            // It was read from a head, so it fits into one.
            let _ = put_field(&mut extra, "Connection", b"Upgrade");
            let _ = put_field(&mut extra, "Upgrade", protocol);
        }
    } else if original.te_trailers && !head.te_trailers && original.keep_alive {
        let _ = put_field(&mut extra, "Connection", b"TE");
        let _ = put_field(&mut extra, "TE", b"trailers");
    }
    let absolute = match head.target() {
        Ok(Target::Absolute(url)) => Some(url),
        _ => None,
    };
    let how = ForwardRequest {
        target: match &absolute {
            Some(url) => TargetLine::Origin(url),
            None => TargetLine::Raw(head.raw_target),
        },
        host: HostLine::AsSent,
        connection,
        extra: &extra,
    };
    let mut out = Vec::new();
    head.forward(&how, &mut out);
    out
}

/// How a response goes to the client.
pub(super) struct Reply {
    pub(super) framing: BodyFraming,
    pub(super) how: BodyOut,
}

impl Reply {
    /// Makes `head` say what its body will be.
    pub(super) fn new(head: &mut ResponseHead<'_>, has_body: bool, http11: bool) -> Result<Self, TaskError> {
        if head.framing == BodyFraming::None {
            return Ok(Self {
                framing: BodyFraming::None,
                how: BodyOut::AsReceived,
            });
        }
        if !has_body {
            head.framing = BodyFraming::Length(0);
        }
        let is_plain = matches!(head.framing, BodyFraming::Length(_));
        if !is_plain && !http11 && head.is_coded {
            return Err(TaskError::UncodableForHttp10);
        }
        let (framing, how) = match (head.framing, http11) {
            (BodyFraming::Length(length), _) => (BodyFraming::Length(length), BodyOut::AsReceived),
            (BodyFraming::UntilClose, _) if head.is_coded => (BodyFraming::UntilClose, BodyOut::AsReceived),
            (_, true) => (BodyFraming::Chunked, BodyOut::Chunked),
            (BodyFraming::Chunked, false) => (BodyFraming::UntilClose, BodyOut::UntilClose),
            (_, false) => (BodyFraming::UntilClose, BodyOut::AsReceived),
        };
        Ok(Self { framing, how })
    }
}
