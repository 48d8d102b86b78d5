//! `sluicectl user token`: what it prints is read by the configuration, and the terminal shows nothing.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sluice_auth::Token;
use sluice_config::decode_text;

use crate::group::{stderr, stdout};

/// Runs it with `input` as standard input.
fn token(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sluicectl"))
        .args(["user", "token"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may end before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn made(words: &[&str], input: &str) -> String {
    let output = token(words, input);
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    stdout(&output)
}

/// The value of `token` in YAML text, as the configuration reads it.
fn read(yaml: &str) -> Token {
    #[derive(serde::Deserialize)]
    struct User {
        token: Token,
    }
    decode_text::<User>(yaml).unwrap().token
}

#[test]
fn every_type_makes_a_token_that_the_configuration_takes() {
    for words in [
        &[][..],
        &["--type", "sha512_crypt"],
        &["--type", "sha512_crypt", "--rounds", "1000"],
        &["--type", "sha256_crypt"],
        &["--type", "sha256_crypt", "--rounds=1000", "--map"],
        &["--type", "md5_crypt"],
        &["--type", "md5_crypt", "--map"],
        &["--type", "fast_hash"],
        &["--type", "fast_hash", "--digest", "md5,sha1,blake3"],
        &["--type", "fast_hash", "--digest", "sha1"],
    ] {
        let yaml = made(words, "öpen sesame\n");
        let token = read(&yaml);
        assert!(token.verify("öpen sesame") && !token.verify("öpen sesame\n"), "{yaml}");
        assert_ne!(yaml, made(words, "öpen sesame\n"), "a salt is used once");

        let json: Value = serde_json::from_str(&made(&[words, &["--json"]].concat(), "öpen sesame\n")).unwrap();
        assert!(read(&json.to_string()).verify("öpen sesame"), "{json}");
    }
}

#[test]
fn with_a_salt_the_known_tokens_come_out() {
    for (words, expected) in [
        (
            &["--type", "md5_crypt", "--salt", "Ab3dEf9h"][..],
            "token: '$1$Ab3dEf9h$3iPHL6KZDeYBu4khOz6YW1'\n",
        ),
        (
            &["--type", "sha256_crypt", "--rounds", "10000", "--salt", "saltsalt"],
            "token: '$5$rounds=10000$saltsalt$3/L5pzkLzBxM2VJWAAoTESufMGyS.GeTcu7lcsnQv/8'\n",
        ),
        (
            &["--type", "sha256_crypt", "--salt", "saltsalt12345678", "--map"],
            "token:\n  type: xcrypt_hash\n  value: '$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1'\n",
        ),
        (
            &[
                "--type",
                "fast_hash",
                "--digest",
                "md5,sha1",
                "--salt",
                "00112233445566ff",
            ],
            "token:\n  type: fast_hash\n  salt: '00112233445566ff'\n  md5: 'c3489a32a47cf9c4833568e65cb8af19'\n  \
             sha1: 'e50df36f2ab9f05dda868278bb4b0efecb04e4e5'\n",
        ),
    ] {
        assert_eq!(made(words, "open sesame\n"), expected);
        // Without a line end, with that of other systems, and on the command line if one insists.
        assert_eq!(made(words, "open sesame"), expected);
        assert_eq!(made(words, "open sesame\r\nmore\n"), expected);
        assert_eq!(made(&[words, &["--password", "open sesame"]].concat(), ""), expected);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_says_why() {
    for (words, input, code, told) in [
        (&[][..], "", 1, "the password is empty"),
        (&[], "\n", 1, "the password is empty"),
        (&[], &*"p".repeat(256), 1, "at most 255 bytes"),
        (&["--salt", "a$b"], "p", 1, "the salt holds a character"),
        (&["--salt", "12345678901234567"], "p", 1, "more than 16 characters"),
        (
            &["--type", "fast_hash", "--salt", "abc"],
            "p",
            1,
            "16 hexadecimal digits",
        ),
        (&["--rounds", "999"], "p", 64, "999"),
        (&["--type", "bcrypt"], "p", 64, "sha512_crypt"),
        (&["--type", "md5_crypt", "--rounds", "1000"], "p", 64, "--rounds is for"),
        (&["--type", "fast_hash", "--rounds", "1000"], "p", 64, "--rounds is for"),
        (&["--type", "fast_hash", "--map"], "p", 64, "--map is for"),
        (&["--digest", "md5"], "p", 64, "--digest is for"),
    ] {
        let output = token(words, input);
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(code), String::new()),
            "{words:?}"
        );
        assert!(stderr(&output).contains(told), "{words:?}: {}", stderr(&output));
    }
}

/// Runs the arguments on a terminal of their own, answers each prompt with a line of standard input, and prints all that
/// the terminal showed, then the exit code and whether the terminal shows what is typed afterwards.
const TERMINAL: &str = r"
import os, pty, select, sys, termios
answers = sys.stdin.buffer.read().split(b'\n')[:-1]
terminal, child_end = pty.openpty()
child = os.fork()
if child == 0:
    os.setsid()
    for fd in range(3):
        os.dup2(child_end, fd)
    os.execv(sys.argv[1], sys.argv[1:])
shown = b''
while True:
    ready, _, _ = select.select([terminal], [], [], 0.05)
    if ready:
        shown += os.read(terminal, 4096)
    elif os.waitpid(child, os.WNOHANG)[0]:
        break
    silent = not termios.tcgetattr(child_end)[3] & termios.ECHO
    if answers and silent and shown.endswith(b': '):
        shown += b'|'
        os.write(terminal, answers.pop(0))
print(shown.decode())
print('echo' if termios.tcgetattr(child_end)[3] & termios.ECHO else 'silent')
";

fn on_a_terminal(answers: &[&str]) -> String {
    let mut child = Command::new("python3")
        .args(["-c", TERMINAL, env!("CARGO_BIN_EXE_sluicectl")])
        .args(["user", "token", "--type", "md5_crypt", "--salt", "Ab3dEf9h"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output).replace("\r\n", "\n")
}

#[test]
fn a_terminal_is_asked_twice_and_shows_nothing() {
    // Enter is CR; a letter too many, one of two bytes, and a whole line are taken back.
    let shown = on_a_terminal(&["open sesameü\x7f\r", "wrong\x15open sesamee\x08\r"]);
    assert_eq!(
        shown,
        "Password: |\nThe same again: |\ntoken: '$1$Ab3dEf9h$3iPHL6KZDeYBu4khOz6YW1'\n\necho\n"
    );
}

#[test]
fn two_different_passwords_make_no_token() {
    let shown = on_a_terminal(&["open sesame\r", "open barley\r"]);
    assert_eq!(
        shown,
        "Password: |\nThe same again: |\nsluicectl: the two passwords differ\n\necho\n"
    );
}

#[test]
fn an_interrupt_leaves_the_terminal_as_it_was() {
    let shown = on_a_terminal(&["open\x03"]);
    assert_eq!(shown, "Password: |\nsluicectl: interrupted\n\necho\n");
}
