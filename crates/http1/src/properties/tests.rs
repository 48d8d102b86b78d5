use std::fs;
use std::path::Path;

use super::*;

/// Calls `property` with every file of the target's corpus.
fn replay(target: &str, property: impl Fn(&[u8])) {
    let folder = Path::new("../../fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        property(&fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 20, "{files} files in {}", folder.display());
}

#[test]
fn the_corpus_of_requests_holds() {
    replay("http1_request", request);
}

#[test]
fn the_corpus_of_responses_holds() {
    replay("http1_response", response);
}

#[test]
fn the_corpus_of_chunks_holds() {
    replay("http1_chunks", chunks);
}
