//! What holds for any text whatever; called by the fuzz target, and by a unit test over its corpus.

use std::str;

use sluice_config::decode_text;

use crate::{CameBy, CryptHash, Token, Username, UsernameParams};

/// Reads the text as a token, as a crypt(5) string, which is shown as it was written, and as a login with parameters.
///
/// # Panics
/// If not.
pub fn texts(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let _ = Username::from_client(text);
    for yaml in [
        "{keys: [a, b, k], floating: k}",
        "{keys: [a, b], reject_unknown_keys: no, reject_duplicate_keys: no, suffix: test}",
    ] {
        let params: UsernameParams = decode_text(yaml).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert!(text.starts_with(params.user(text)));
        if let Ok(Some(egress)) = params.egress(text, CameBy::Http) {
            assert!(text.contains('+') && egress.addr.port == 10000);
        }
    }
    if let Ok(hash) = CryptHash::parse(text) {
        assert_eq!(hash.reveal(), text);
    }
    // Crypt hashes take their time: they have tests of their own.
    if let Ok(token @ (Token::Any | Token::Fast(_) | Token::Never)) = decode_text::<Token>(text) {
        assert_eq!(token.verify("password"), token == Token::Any);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_sample_of_the_fuzz_corpus_holds() {
        let corpus = Path::new("../../fuzz/corpus/auth_texts");
        let mut samples = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::texts(&fs::read(entry.unwrap().path()).unwrap());
            samples += 1;
        }
        assert!(samples >= 10, "there are {samples} samples");
    }
}
