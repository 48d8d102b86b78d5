//! SHA256-crypt and SHA512-crypt, as Ulrich Drepper specified them ("Unix crypt using SHA-256 and SHA-512"). The numbers
//! in the comments are his.

use sha2::digest::Output;
use sha2::{Digest, Sha256, Sha512};

use super::{put_letters, stretch};

pub(super) fn sha256(password: &[u8], salt: &[u8], rounds: u32) -> String {
    let digest = digest::<Sha256>(password, salt, rounds);
    // 22 e: each group is the one before with 21 added to each index, modulo 30.
    let groups = (0..10).map(|at| [0, 10, 20].map(|first| Some((first + 21 * at) % 30)));
    put_letters(&digest, groups.chain([[None, Some(31), Some(30)]]))
}

pub(super) fn sha512(password: &[u8], salt: &[u8], rounds: u32) -> String {
    let digest = digest::<Sha512>(password, salt, rounds);
    // 22 f: the same with 22 and 63.
    let groups = (0..21).map(|at| [0, 21, 42].map(|first| Some((first + 22 * at) % 63)));
    put_letters(&digest, groups.chain([[None, None, Some(63)]]))
}

fn digest<D: Digest>(password: &[u8], salt: &[u8], rounds: u32) -> Output<D> {
    // 4 to 8
    let b = D::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password);
    let b = b.finalize();
    // 1 to 3, 9 to 12
    let mut a = D::new().chain_update(password).chain_update(salt);
    a.update(stretch(&b, password.len()));
    let mut bits = password.len();
    while bits > 0 {
        a.update(if bits & 1 == 1 { &b } else { password });
        bits >>= 1;
    }
    let mut digest = a.finalize();
    // 13 to 16
    let mut dp = D::new();
    for _ in 0..password.len() {
        dp.update(password);
    }
    let p = stretch(&dp.finalize(), password.len());
    // 17 to 20
    let mut ds = D::new();
    for _ in 0..16 + usize::from(digest.first().copied().unwrap_or_default()) {
        ds.update(salt);
    }
    let s = stretch(&ds.finalize(), salt.len());
    // 21
    for round in 0..rounds {
        let odd = round % 2 == 1;
        let mut c = D::new().chain_update(if odd { &p } else { &*digest });
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        c.update(if odd { &*digest } else { &p });
        digest = c.finalize();
    }
    digest
}
