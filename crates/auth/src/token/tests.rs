use serde::Deserialize;
use sluice_config::{Node, decode_node, decode_text};

use super::*;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    #[serde(default)]
    token: Token,
}

fn user(yaml: &str) -> Result<Token, String> {
    decode_text::<User>(yaml)
        .map(|user| user.token)
        .map_err(|errors| errors.join("; "))
}

const SHA512: &str =
    "$6$saltsalt12345678$s24eYBRjFfNAaVckDSLuF2nhQIqYGgQAfsceyvtp2.bLnwaXMyRZElVvm5wV9ls6yXdrtXzRql/pnf7RXa/0V/";
const FAST: &str = "{salt: 113323bdab6fd2cc, md5: 5c81f2becadde7fa5fde9026652ccc84, \
                    sha1: ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96}";

#[test]
fn absent_is_not_null() {
    let absent = user("{}").unwrap();
    assert_eq!(absent, Token::Never);
    assert!(!absent.verify("") && !absent.verify("x"));
    for yaml in ["token:", "token: ~", "token: null"] {
        let null = user(yaml).unwrap();
        assert_eq!(null, Token::Any);
        assert!(null.verify("") && null.verify("x"));
    }
}

#[test]
fn strings_and_maps_are_hashes() {
    for (yaml, password, slow) in [
        (format!("token: {SHA512}"), "open sesame", true),
        (
            format!("token: {{type: xcrypt_hash, value: {SHA512}}}"),
            "open sesame",
            true,
        ),
        (
            format!("token: {{Type: Xcrypt-Hash, value: {SHA512}}}"),
            "open sesame",
            true,
        ),
        (format!("token: {FAST}"), "toor", false),
        (format!("token: {{type: fast_hash, {}", &FAST[1..]), "toor", false),
        (
            "token: {salt: '00112233445566ff', sha1: 'E50DF36F2AB9F05DDA868278BB4B0EFECB04E4E5'}".to_owned(),
            "open sesame",
            false,
        ),
    ] {
        let token = user(&yaml).unwrap();
        assert!(token.verify(password) && !token.verify("other"), "{yaml}");
        assert_eq!(token.is_slow(), slow, "{yaml}");
    }
}

#[test]
fn b3_is_another_name_of_blake3() {
    let hash = FastHash::make(&[crate::Digest::Blake3], *b"saltsalt", "p").unwrap();
    let digest = hash.reveal().last().unwrap().1;
    for key in ["blake3", "b3"] {
        let token = user(&format!("token: {{salt: '73616c7473616c74', {key}: '{digest}'}}")).unwrap();
        assert_eq!(token, Token::Fast(hash.clone()));
    }
}

#[test]
fn json_is_read_by_the_same_rules() {
    for (json, expected) in [
        ("{}", Token::Never),
        ("{\"token\": null}", Token::Any),
        (
            &format!("{{\"token\": \"{SHA512}\"}}"),
            user(&format!("token: {SHA512}")).unwrap(),
        ),
        (
            "{\"token\": {\"type\": \"fast_hash\", \"salt\": \"113323bdab6fd2cc\", \
             \"md5\": \"5c81f2becadde7fa5fde9026652ccc84\", \"sha1\": \"ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96\"}}",
            user(&format!("token: {FAST}")).unwrap(),
        ),
    ] {
        let node = Node::from_json(json).unwrap();
        assert_eq!(decode_node::<User>(&node).unwrap().token, expected, "{json}");
    }
}

#[test]
fn every_error_has_its_place_and_shows_no_secret() {
    for (yaml, error) in [
        ("token: true", "token: expected nothing, a string or a map"),
        ("token: 5", "token: expected nothing, a string or a map"),
        ("token: [a]", "token: expected nothing, a string or a map"),
        (
            "token: hunter2",
            "token: the string begins with none of `$1$`, `$5$` and `$6$`",
        ),
        (
            "token: $5$hunter2$hunter2",
            "token: the hash is malformed: it has 43 letters, digits, dots and slashes",
        ),
        ("token: {}", "token: one of `md5`, `sha1` and `blake3` is needed"),
        (
            "token: {salt: '113323bdab6fd2cc'}",
            "token: one of `md5`, `sha1` and `blake3` is needed",
        ),
        (
            "token: {md5: '5c81f2becadde7fa5fde9026652ccc84'}",
            "token: `salt` is missing",
        ),
        (
            "token: {salt: '1133', md5: hunter2}",
            "token.salt: expected a string of 16 hexadecimal digits, quoted if it looks like a number; \
             token.md5: expected a string of 32 hexadecimal digits, quoted if it looks like a number",
        ),
        (
            "token: {salt: 1133230000000000, md5: '5c81f2becadde7fa5fde9026652ccc84'}",
            "token.salt: expected a string of 16 hexadecimal digits, quoted if it looks like a number",
        ),
        (
            "token: {salt: 11332300000000e1, md5: '5c81f2becadde7fa5fde9026652ccc84'}",
            "token.salt: expected a string of 16 hexadecimal digits, quoted if it looks like a number",
        ),
        (
            "token: {salt: '+113323bdab6fd2c', md5: ~}",
            "token.salt: expected a string of 16 hexadecimal digits, quoted if it looks like a number; \
             token.md5: expected a string of 32 hexadecimal digits, quoted if it looks like a number",
        ),
        ("token: {type: xcrypt_hash}", "token: `value` is missing"),
        (
            "token: {type: xcrypt_hash, value: hunter2}",
            "token.value: the string begins with none of `$1$`, `$5$` and `$6$`",
        ),
        ("token: {sha256: hunter2}", "token: unknown key `sha256`"),
        (
            "token: {type: hunter2}",
            "token.type: expected `fast_hash` or `xcrypt_hash`, found `(hidden)`",
        ),
        (
            "token: {value: $5$s$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1, md5: '5c81f2becadde7fa5fde9026652ccc84'}",
            "token.value: only a map of type `xcrypt_hash` has it",
        ),
        (
            "token: {type: xcrypt_hash, salt: '113323bdab6fd2cc'}",
            "token.salt: only a map of type `fast_hash` has it",
        ),
    ] {
        let errors = user(yaml).unwrap_err();
        assert_eq!(errors, error, "{yaml}");
        assert!(!errors.contains("hunter2"));
    }
}

#[test]
fn debug_shows_no_secret() {
    for yaml in [format!("token: {SHA512}"), format!("token: {FAST}")] {
        let shown = format!("{:?}", user(&yaml).unwrap());
        for secret in ["saltsalt", "s24eYBR", "1133", "113323", "5c81"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}

#[test]
fn the_schema_knows_every_form() {
    let schema = schemars::schema_for!(Token).to_value();
    let text = schema.to_string();
    for word in ["null", "xcrypt_hash", "fast_hash", "blake3", "^[0-9A-Fa-f]{16}$"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}
