//! What holds for any bytes whatever; called by the fuzz targets, and by unit tests over their corpora.
//!
//! Each function panics if its property does not hold.

use crate::{
    Awaits, BodyError, BodyFraming, BodyScanner, ForwardRequest, ForwardResponse, Limits, Partial, RequestHead,
    ResponseHead, TargetLine, parse_request, parse_response,
};

/// Longer inputs are cut: every prefix is parsed, and limits have tests of their own.
const MAX: usize = 1024;

/// A request head parses the same however it is split, and what is forwarded means the same to the next parser.
///
/// # Panics
/// If not.
pub fn request(data: &[u8]) {
    let data = data.get(..MAX).unwrap_or(data);
    let limits = Limits::default();
    let whole = parse_request(data, &limits);
    let mut partial = Partial::default();
    for prefix in (1..=data.len()).filter_map(|len| data.get(..len)) {
        let worth = partial.is_worth_parsing(prefix, limits.head_max);
        match (parse_request(prefix, &limits), &whole) {
            (Ok(None), _) => {}
            (Err(_), Err(_)) => return,
            (Ok(Some(early)), Ok(Some(whole))) => {
                assert!(worth, "a complete head was not worth parsing");
                assert_eq!(
                    (early.len, early.framing, early.method),
                    (whole.len, whole.framing, whole.method)
                );
                break;
            }
            (early, whole) => panic!("{early:?} of {} bytes, {whole:?} of all", prefix.len()),
        }
    }
    if let Ok(Some(head)) = whole {
        forwarded_request(&head);
    }
}

fn forwarded_request(head: &RequestHead<'_>) {
    // Must not panic, whatever the target is.
    let _ = (head.target(), head.host_authority());
    let mut out = Vec::new();
    head.forward(&ForwardRequest::new(TargetLine::Raw(head.raw_target)), &mut out);
    assert_crlf(&out);
    let limits = Limits {
        head_max: u32::MAX,
        fields_max: u16::MAX,
        ..Limits::default()
    };
    let again = match parse_request(&out, &limits) {
        Ok(Some(again)) => again,
        other => panic!("forwarded head {:?} gives {other:?}", String::from_utf8_lossy(&out)),
    };
    assert_eq!(again.len, out.len());
    assert_eq!(
        (again.framing, again.method, again.raw_target),
        (head.framing, head.method, head.raw_target)
    );
    assert_eq!(again.host, head.host);
    assert_eq!(again.upgrade, None);
    let kept: Vec<_> = head
        .fields()
        .filter(|field| !field.stays)
        .map(|field| (field.name, field.value))
        .collect();
    let resent: Vec<_> = again
        .fields()
        .filter(|field| !field.stays)
        .map(|field| (field.name, field.value))
        .collect();
    assert_eq!(kept, resent);
    let mut twice = Vec::new();
    again.forward(&ForwardRequest::new(TargetLine::Raw(again.raw_target)), &mut twice);
    assert_eq!(out, twice);
}

/// A response head parses the same however it is split, and what is forwarded means the same to the next parser.
///
/// # Panics
/// If not.
pub fn response(data: &[u8]) {
    let data = data.get(..MAX).unwrap_or(data);
    let limits = Limits::default();
    for awaits in [Awaits::Other, Awaits::Head, Awaits::Connect] {
        let whole = parse_response(data, &limits, awaits);
        let mut partial = Partial::default();
        for prefix in (1..=data.len()).filter_map(|len| data.get(..len)) {
            let worth = partial.is_worth_parsing(prefix, limits.head_max);
            match (parse_response(prefix, &limits, awaits), &whole) {
                (Ok(None), _) => {}
                (Err(_), Err(_)) => return,
                (Ok(Some(early)), Ok(Some(whole))) => {
                    assert!(worth, "a complete head was not worth parsing");
                    assert_eq!(
                        (early.len, early.framing, early.status),
                        (whole.len, whole.framing, whole.status)
                    );
                    break;
                }
                (early, whole) => panic!("{early:?} of {} bytes, {whole:?} of all", prefix.len()),
            }
        }
        if let Ok(Some(head)) = whole {
            forwarded_response(&head, awaits);
        }
    }
}

fn forwarded_response(head: &ResponseHead<'_>, awaits: Awaits) {
    let mut out = Vec::new();
    head.forward(&ForwardResponse::default(), &mut out);
    assert_crlf(&out);
    let limits = Limits {
        head_max: u32::MAX,
        fields_max: u16::MAX,
        ..Limits::default()
    };
    let again = match parse_response(&out, &limits, awaits) {
        Ok(Some(again)) => again,
        other => panic!("forwarded head {:?} gives {other:?}", String::from_utf8_lossy(&out)),
    };
    assert_eq!(again.len, out.len());
    assert_eq!(
        (again.status, again.reason(), again.framing),
        (head.status, head.reason(), head.framing)
    );
    // Whatever was contradictory has been settled, but for codings that only the origin's closing ends.
    assert!(!again.taints || again.is_coded);
    let kept: Vec<_> = head
        .fields()
        .filter(|field| !field.stays)
        .map(|field| (field.name, field.value))
        .collect();
    let resent: Vec<_> = again
        .fields()
        .filter(|field| !field.stays)
        .map(|field| (field.name, field.value))
        .collect();
    assert_eq!(kept, resent);
    let mut twice = Vec::new();
    again.forward(&ForwardResponse::default(), &mut twice);
    assert_eq!(out, twice);
}

/// A chunked body gives the same verdict, the same end and the same payload however it is split, and the payload is what
/// a decoder that sees all of it at once finds. The first byte of `data` seeds one of the splits.
///
/// # Panics
/// If not.
pub fn chunks(data: &[u8]) {
    let Some((&seed, body)) = data.split_first() else {
        return;
    };
    let limits = Limits {
        head_max: 4096,
        body_line_max: 256,
        ..Limits::default()
    };
    let whole = decode(body, &limits, |_| usize::MAX);
    let single = decode(body, &limits, |_| 1);
    let mut state = u32::from(seed);
    let random = decode(body, &limits, |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        usize::from(state.to_be_bytes()[0] % 23) + 1
    });
    assert_eq!(whole, single);
    assert_eq!(whole, random);
    if let Outcome {
        end: Some(end),
        error: None,
        payload,
    } = &whole
    {
        assert_eq!(reference(body), Some((payload.clone(), *end)));
    }
    let mut scanner = BodyScanner::new(BodyFraming::Chunked, &limits);
    match scanner.scan(body) {
        Ok(scan) => assert_eq!((scan.done.then_some(scan.forward), None), (whole.end, whole.error)),
        Err(error) => assert_eq!(Some(error), whole.error),
    }
    // Spliced past the scanner where that is allowed.
    let mut scanner = BodyScanner::new(BodyFraming::Chunked, &limits);
    let mut rest = body;
    let outcome = loop {
        let opaque = usize::try_from(scanner.opaque()).unwrap_or(usize::MAX).min(rest.len());
        scanner.skip(opaque as u64);
        let (_, after) = rest.split_at(opaque);
        let Some((byte, after)) = after.split_first() else {
            break Ok(scanner.is_done().then_some(body.len()));
        };
        match scanner.scan(std::slice::from_ref(byte)) {
            Err(error) => break Err(error),
            Ok(scan) if scan.done => break Ok(Some(body.len() - after.len())),
            Ok(_) => rest = after,
        }
    };
    assert_eq!(outcome, whole.error.map_or(Ok(whole.end), Err));
}

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    payload: Vec<u8>,
    /// Where the body ended, if it did.
    end: Option<usize>,
    error: Option<BodyError>,
}

fn decode(body: &[u8], limits: &Limits, mut size: impl FnMut(usize) -> usize) -> Outcome {
    let mut scanner = BodyScanner::new(BodyFraming::Chunked, limits);
    let (mut payload, mut at) = (Vec::new(), 0);
    while at < body.len() && !scanner.is_done() {
        let end = at.saturating_add(size(at)).min(body.len());
        let mut slice = body.get(at..end).unwrap_or_default();
        loop {
            match scanner.payload(&mut slice) {
                Ok(Some(part)) => payload.extend_from_slice(part),
                Ok(None) => break,
                Err(error) => {
                    return Outcome {
                        payload,
                        end: None,
                        error: Some(error),
                    };
                }
            }
        }
        at = end - slice.len();
        assert!(
            slice.is_empty() || scanner.is_done(),
            "bytes were left over before the end"
        );
    }
    Outcome {
        payload,
        end: scanner.is_done().then_some(at),
        error: None,
    }
}

/// Decodes a body that has been found valid, the simple way.
fn reference(body: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut payload, mut at) = (Vec::new(), 0);
    let line_at = |at: usize| {
        let rest = body.get(at..)?;
        let len = rest.windows(2).position(|pair| pair == b"\r\n")?;
        Some((rest.get(..len)?, at + len + 2))
    };
    loop {
        let (line, next) = line_at(at)?;
        let digits = str::from_utf8(line.split(|&b| b == b';').next()?).ok()?;
        let size = usize::from_str_radix(digits, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        payload.extend_from_slice(body.get(at..at + size)?);
        at += size + 2;
    }
    loop {
        let (line, next) = line_at(at)?;
        at = next;
        if line.is_empty() {
            return Some((payload, at));
        }
    }
}

fn assert_crlf(out: &[u8]) {
    let crlf = out.windows(2).filter(|pair| pair == b"\r\n").count();
    assert_eq!(crlf, out.iter().filter(|&&b| b == b'\r').count());
    assert_eq!(crlf, out.iter().filter(|&&b| b == b'\n').count());
    assert!(out.ends_with(b"\r\n\r\n"));
}

#[cfg(test)]
mod tests;
