//! MD5-crypt, as FreeBSD's libcrypt made it.

use md5::{Digest, Md5};

use super::{put_letters, stretch};

const ROUNDS: u32 = 1000;

pub(super) fn hash(password: &[u8], salt: &[u8]) -> String {
    let alternate = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password);
    let alternate = stretch(&alternate.finalize(), password.len());
    let mut start = Md5::new().chain_update(password).chain_update("$1$").chain_update(salt);
    start.update(alternate);
    let mut bits = password.len();
    while bits > 0 {
        // A bit that is set adds a zero, any other the first letter: an accident that has become the rule.
        let first = password.get(..1).unwrap_or_default();
        start.update(if bits & 1 == 1 { &[0] } else { first });
        bits >>= 1;
    }
    let mut digest = start.finalize();
    for round in 0..ROUNDS {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &digest } else { password });
        digest = next.finalize();
    }
    let groups = (0..5).map(|at| [Some(at), Some(at + 6), Some(if at == 4 { 5 } else { at + 12 })]);
    put_letters(&digest, groups.chain([[None, None, Some(11)]]))
}
