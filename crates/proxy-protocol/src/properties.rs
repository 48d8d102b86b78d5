//! What holds for any bytes whatever; called by the fuzz target, and by a unit test over its corpus.

use crate::{MAX_HEADER, Version, parse_header, put_header};

/// Reads the bytes as a header of either version: the verdict is the same in every split, and addresses that were
/// understood are understood again in the form that is sent here.
///
/// # Panics
/// If not.
pub fn header(data: &[u8]) {
    for version in [Version::V1, Version::V2] {
        header_of(data, version);
    }
}

fn header_of(data: &[u8], version: Version) {
    let whole = parse_header(data, version);
    assert!(
        whole != Ok(None) || data.len() < MAX_HEADER,
        "a whole header and no verdict"
    );
    for prefix in (0..data.len()).filter_map(|len| data.get(..len)) {
        let early = parse_header(prefix, version);
        match early {
            Ok(None) => continue,
            Ok(Some((_, len))) => assert_eq!(len, prefix.len()),
            Err(_) => {}
        }
        assert_eq!(early, whole, "after {} of {} bytes", prefix.len(), data.len());
        break;
    }
    let Ok(Some((header, _))) = whole else { return };
    for tlv in header.tlvs {
        let _ = format!("{tlv:?}");
    }
    let Some(addresses) = header.addresses else { return };
    let mut out = Vec::new();
    // A mapped address beside a true IPv6 one: they were of one family, and are not.
    let families_differ = addresses.client.is_ipv4() != addresses.server.is_ipv4();
    assert_eq!(put_header(version, &addresses, &mut out).is_err(), families_differ);
    if !families_differ {
        let (again, len) = match parse_header(&out, version) {
            Ok(Some(again)) => again,
            other => panic!("{other:?} of what is sent for {addresses:?}"),
        };
        assert_eq!((again.addresses, len), (Some(addresses), out.len()));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_sample_of_the_fuzz_corpus_holds() {
        let corpus = Path::new("../../fuzz/corpus/proxy_protocol_header");
        let mut samples = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::header(&fs::read(entry.unwrap().path()).unwrap());
            samples += 1;
        }
        assert!(samples > 15, "there are {samples} samples");
    }
}
