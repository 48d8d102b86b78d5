//! What holds for any bytes whatever; called by the fuzz target, and by a unit test over its corpus.

use std::fmt::Debug;

use crate::{Encapsulated, Limits, Method, Options, end_to_end, parse_request, parse_response};

/// Reads the bytes as every message: the verdict is the same in every split, and what was understood is bounded.
///
/// # Panics
/// If not.
pub fn message(data: &[u8]) {
    let limits = Limits {
        head_max: 512,
        ..Limits::default()
    };
    let request = verdict(data, |buf| parse_request(buf, &limits));
    if let Some(request) = request {
        assert!(request.len <= limits.head_max as usize && request.len <= data.len());
        assert!(request.encapsulated.heads() <= limits.parts_max as usize);
        assert!(request.fields().count() <= usize::from(limits.fields_max));
        let _ = request.path();
        check_parts(request.encapsulated);
    }
    if let Some(response) = verdict(data, |buf| parse_response(buf, &limits)) {
        assert!((100..600).contains(&response.status) && response.len <= data.len());
        if let Some(parts) = response.encapsulated {
            check_parts(parts);
        }
        for method in [Method::Reqmod, Method::Respmod] {
            let _ = Options::read(&response, method);
        }
    }
    if let Ok(parts) = Encapsulated::parse(data) {
        check_parts(parts);
    }
    let mut once = Vec::new();
    if end_to_end(data, &["via"], &mut once).is_ok() {
        assert!(once.len() <= data.len());
        let mut twice = Vec::new();
        assert!(end_to_end(&once, &["via"], &mut twice).is_ok());
        assert_eq!(once, twice, "a head that was cleaned is clean");
    }
}

/// What is written of parts is read as the same parts.
fn check_parts(parts: Encapsulated) {
    assert_eq!(Encapsulated::parse(parts.to_string().as_bytes()), Ok(parts));
}

/// What `parse` says of the bytes; it must say it of no shorter beginning in another way.
fn verdict<'d, T: Debug + PartialEq, E: Debug + PartialEq>(
    data: &'d [u8],
    parse: impl Fn(&'d [u8]) -> Result<Option<T>, E>,
) -> Option<T> {
    let whole = parse(data);
    for len in 0..data.len().min(600) {
        let part = parse(data.get(..len).unwrap_or_default());
        match part {
            Ok(None) => {}
            // What is complete, or wrong, stays so, whatever follows.
            Ok(Some(_)) => assert_eq!(part, whole, "at {len}"),
            Err(_) => assert!(whole.is_err(), "at {len}"),
        }
    }
    whole.ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_of_the_fuzz_target_holds() {
        let corpus = Path::new("../../fuzz/corpus/icap_message");
        let mut count = 0;
        for file in fs::read_dir(corpus).unwrap() {
            super::message(&fs::read(file.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 5);
    }
}
