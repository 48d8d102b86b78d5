//! A forward proxy that knows its users, and what they say to it.

use sluice_testkit::Origin;

use crate::proxy;

/// The password is `toor`.
pub const TOKEN: &str = "{salt: 113323bdab6fd2cc, sha1: ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96}";

/// The same in JSON.
pub const TOKEN_JSON: &str = r#"{"salt": "113323bdab6fd2cc", "sha1": "ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96"}"#;

/// The password is `open sesame`.
pub const SHA512: &str =
    "$6$saltsalt12345678$s24eYBRjFfNAaVckDSLuF2nhQIqYGgQAfsceyvtp2.bLnwaXMyRZElVvm5wV9ls6yXdrtXzRql/pnf7RXa/0V/";

/// A proxy whose users are the group `staff` with these keys; `server` and `escaper` are more keys of theirs.
pub fn with_users(group: &str, server: &str, escaper: &str) -> String {
    format!(
        "{}user_group:\n  - {{name: staff, {group}}}\n",
        proxy(&format!("user_group: staff, {server}"), escaper)
    )
}

/// The same with these static users.
pub fn with_static(users: &str, server: &str) -> String {
    with_users(&format!("static_users: [{users}]"), server, "")
}

/// A user `root` with the password `toor` and these keys.
pub fn root(keys: &str) -> String {
    format!("{{name: root, token: {TOKEN}, {keys}}}")
}

/// A response with this body.
pub fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// The field that logs a user in.
pub fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{user}:{password}");
    let digits = text.as_bytes().chunks(3).flat_map(|three| {
        let bits = three.iter().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - three.len()));
        let digit = move |at: usize| {
            if at > three.len() {
                b'='
            } else {
                ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]
            }
        };
        (0..4).map(digit)
    });
    let credentials: String = digits.map(char::from).collect();
    format!("Proxy-Authorization: Basic {credentials}\r\n")
}

/// A request for what an origin has, with these fields.
pub fn get(origin: &Origin, fields: &str) -> String {
    format!("GET http://{}/ HTTP/1.1\r\n{fields}\r\n", origin.addr())
}
