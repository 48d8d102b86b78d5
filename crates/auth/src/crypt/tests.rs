use std::io::Write as _;
use std::process::{Command, Stdio};

use super::*;

const VECTORS: [&str; 5] = [
    "$1$Ab3dEf9h$3iPHL6KZDeYBu4khOz6YW1",
    "$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1",
    "$6$saltsalt12345678$s24eYBRjFfNAaVckDSLuF2nhQIqYGgQAfsceyvtp2.bLnwaXMyRZElVvm5wV9ls6yXdrtXzRql/pnf7RXa/0V/",
    "$5$rounds=10000$saltsalt$3/L5pzkLzBxM2VJWAAoTESufMGyS.GeTcu7lcsnQv/8",
    "$6$rounds=10000$saltsalt$nK3WUcQV5jmHQEiBwBe2KG8krQrMX7eAGIKqngH7tOl0yTtvzLqkfTyz5nevC.LG92y9pG.XZsEtZtAdk4LOn0",
];

/// What `program` prints for `input`.
fn output(program: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Passwords of lengths around those of digests and their blocks.
fn passwords() -> Vec<String> {
    let letters = "Open sesame, Käthe! 0123456789 ".chars().cycle();
    let of = |length: usize| {
        let mut text = String::new();
        for letter in letters.clone() {
            if text.len() + letter.len_utf8() > length {
                break;
            }
            text.push(letter);
        }
        text
    };
    [1, 2, 3, 8, 15, 16, 17, 19, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255]
        .map(of)
        .into()
}

#[test]
fn the_vectors_verify_with_and_without_rounds_au_06() {
    for text in VECTORS {
        let hash = CryptHash::parse(text).unwrap();
        assert_eq!(hash.reveal(), text);
        assert!(hash.verify("open sesame"), "{text}");
        for password in ["", "open sesam", "open sesame ", "Open sesame"] {
            assert!(!hash.verify(password), "{text} {password:?}");
        }
    }
}

#[test]
fn openssl_makes_the_same_hashes() {
    let passwords = passwords();
    for (option, method, rounds, salt) in [
        ("-1", CryptMethod::Md5, None, "s"),
        ("-1", CryptMethod::Md5, None, "./Az09zZ"),
        ("-5", CryptMethod::Sha256, Some(1000), "s"),
        ("-5", CryptMethod::Sha256, Some(1001), "./Az09zZ01234567"),
        ("-6", CryptMethod::Sha512, Some(1000), "s"),
        ("-6", CryptMethod::Sha512, Some(1234), "./Az09zZ01234567"),
    ] {
        let setting = rounds.map_or_else(|| salt.to_owned(), |rounds| format!("rounds={rounds}${salt}"));
        let made = output(
            "openssl",
            &["passwd", option, "-salt", &setting, "-stdin"],
            &(passwords.join("\n") + "\n"),
        );
        assert_eq!(made.lines().count(), passwords.len());
        for (text, password) in made.lines().zip(&passwords) {
            let own = CryptHash::make(method, rounds, salt, password).unwrap();
            assert_eq!(own.reveal(), text, "{password}");
            assert!(CryptHash::parse(text).unwrap().verify(password));
        }
    }
}

/// Reads lines of `setting TAB password` and prints what the system's libcrypt makes of them.
const LIBCRYPT: &str = "import ctypes, sys
crypt = ctypes.CDLL('libcrypt.so.1').crypt
crypt.restype = ctypes.c_char_p
for line in sys.stdin.buffer.read().splitlines():
    setting, password = line.split(b'\\t')
    print(crypt(password, setting).decode())
";

#[test]
fn libcrypt_makes_the_same_hashes() {
    let passwords = passwords();
    let settings = [
        (CryptMethod::Md5, None, "salt"),
        (CryptMethod::Sha256, None, "saltsalt"),
        (CryptMethod::Sha256, Some(1000), "salt"),
        (CryptMethod::Sha512, None, "saltsalt"),
        (CryptMethod::Sha512, Some(1000), "salt"),
    ];
    let mut asked = String::new();
    let mut own = Vec::new();
    for (method, rounds, salt) in settings {
        // Where no rounds are said there are five times as many: a few will do.
        let step = if rounds.is_none() { 6 } else { 1 };
        for password in [""]
            .into_iter()
            .chain(passwords.iter().map(String::as_str))
            .step_by(step)
        {
            let text = CryptHash::make(method, rounds, salt, password).unwrap().reveal();
            let (setting, _) = text.rsplit_once('$').unwrap();
            asked += &format!("{setting}\t{password}\n");
            own.push(text);
        }
    }
    let made = output("python3", &["-c", LIBCRYPT], &asked);
    assert_eq!(made.lines().collect::<Vec<_>>(), own);
}

#[test]
fn malformed_strings_are_refused() {
    let (md5, sha256) = ("3iPHL6KZDeYBu4khOz6YW1", "goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1");
    for (text, error) in [
        ("", CryptError::Prefix),
        ("plain", CryptError::Prefix),
        ("$2b$12$abc", CryptError::Prefix),
        ("$y$j9T$salt$hash", CryptError::Prefix),
        ("$1", CryptError::Prefix),
        ("$1$", CryptError::SaltEmpty),
        (&format!("$1$${md5}"), CryptError::SaltEmpty),
        (&format!("$1$123456789${md5}"), CryptError::SaltTooLong { max: 8 }),
        (
            &format!("$5$12345678901234567${sha256}"),
            CryptError::SaltTooLong { max: 16 },
        ),
        (&format!("$5$a b${sha256}"), CryptError::SaltLetter),
        (&format!("$5$ä${sha256}"), CryptError::SaltLetter),
        ("$5$salt", CryptError::Hash { expected: 43 }),
        ("$5$salt$", CryptError::Hash { expected: 43 }),
        (&format!("$5$salt${sha256}x"), CryptError::Hash { expected: 43 }),
        (
            &format!("$5$salt$x${}", &sha256[2..]),
            CryptError::Hash { expected: 43 },
        ),
        (&format!("$5$salt${}", &sha256[1..]), CryptError::Hash { expected: 43 }),
        (&format!("$5$salt$!{}", &sha256[1..]), CryptError::Hash { expected: 43 }),
        // The last letter has more bits than the hash.
        (&format!("$5$salt${}z", &sha256[1..]), CryptError::Hash { expected: 43 }),
        (&format!("$1$salt${}z", &md5[1..]), CryptError::Hash { expected: 22 }),
        (&format!("$6$salt${sha256}"), CryptError::Hash { expected: 86 }),
        (
            &format!("$1$rounds=1000$salt${md5}"),
            CryptError::SaltTooLong { max: 8 },
        ),
        (&format!("$5$rounds=1000${sha256}"), CryptError::SaltTooLong { max: 16 }),
        ("$5$rounds=5000", CryptError::Rounds),
        (&format!("$5$rounds=$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=999$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=1000000000$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=99999999999$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=+5000$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=05000$salt${sha256}"), CryptError::Rounds),
        (&format!("$5$rounds=5000x$salt${sha256}"), CryptError::Rounds),
    ] {
        assert_eq!(CryptHash::parse(text), Err(error), "{text}");
        // What failed leaves nothing behind for those that come next (AU-06).
        assert!(CryptHash::parse(VECTORS[0]).unwrap().verify("open sesame"));
    }
}

#[test]
fn hashes_are_made_only_of_what_can_be_read_again() {
    let make =
        |method, rounds, salt, password| CryptHash::make(method, rounds, salt, password).map(|hash| hash.reveal());
    assert_eq!(
        make(CryptMethod::Md5, None, "Ab3dEf9h", "open sesame").as_deref(),
        Ok(VECTORS[0])
    );
    assert_eq!(
        make(CryptMethod::Sha256, Some(10000), "saltsalt", "open sesame").as_deref(),
        Ok(VECTORS[3])
    );
    assert_eq!(
        make(CryptMethod::Md5, Some(1000), "salt", "p"),
        Err(CryptError::RoundsOfMd5)
    );
    for rounds in [0, 999, 1_000_000_000] {
        assert_eq!(
            make(CryptMethod::Sha512, Some(rounds), "salt", "p"),
            Err(CryptError::Rounds)
        );
    }
    assert_eq!(make(CryptMethod::Sha512, None, "", "p"), Err(CryptError::SaltEmpty));
    for salt in ["a$b", "a'b", "a_b"] {
        assert_eq!(make(CryptMethod::Sha512, None, salt, "p"), Err(CryptError::SaltLetter));
    }
    assert_eq!(
        make(CryptMethod::Md5, None, "s", &"p".repeat(256)),
        Err(CryptError::PasswordTooLong)
    );
}

#[test]
fn passwords_of_more_than_255_bytes_are_nobodys() {
    let longest = "p".repeat(255);
    let hash = CryptHash::make(CryptMethod::Md5, None, "s", &longest).unwrap();
    assert!(hash.verify(&longest));
    let longer = longest + "p";
    let of_longer = CryptHash {
        hash: super::hash(CryptMethod::Md5, None, "s", &longer).into(),
        ..hash
    };
    assert!(!of_longer.verify(&longer));
}

#[test]
fn debug_shows_neither_salt_nor_hash() {
    let shown = format!("{:?}", CryptHash::parse(VECTORS[3]).unwrap());
    assert!(!shown.contains("saltsalt") && !shown.contains("L5pz"), "{shown}");
    assert!(shown.contains("10000"));
}
