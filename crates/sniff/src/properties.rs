//! What holds for any bytes; called by the fuzz target, and by the test that replays its corpus.

use crate::hello::ClientHello;
use crate::{Hints, Limits, Protocol, Verdict, of_client, of_server};

const ALL: [Protocol; 14] = [
    Protocol::Dns,
    Protocol::Ftp,
    Protocol::Imap,
    Protocol::Ldap,
    Protocol::Mqtt,
    Protocol::Nats,
    Protocol::Nnsp,
    Protocol::Nntp,
    Protocol::Pop3,
    Protocol::Rtmp,
    Protocol::Rtsp,
    Protocol::Smpp,
    Protocol::Smtp,
    Protocol::Stomp,
];

/// Checks one stream: the first two bytes choose hints, the rest is what is looked at.
///
/// # Panics
/// If something does not hold.
pub fn check(data: &[u8]) {
    let Some(([port, tls], bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let at = usize::from(*port) % (ALL.len() + 1);
    let hints = Hints {
        protocols: ALL.get(at..(at + 1).min(ALL.len())).unwrap_or_default(),
        tls_first: tls & 1 == 1,
    };
    let limits = Limits {
        ftp_greeting: 64,
        http_uri: 64,
        imap_greeting: 64,
        ldap_request: 64,
        nats_info: 64,
    };
    for look in [of_client, of_server] {
        let mut last = Verdict::More;
        for end in 0..=bytes.len() {
            let verdict = look(bytes.get(..end).unwrap_or_default(), hints, &limits);
            if last == Verdict::Not {
                assert_eq!(verdict, Verdict::Not, "what can be nothing became something at {end}");
            }
            assert!(
                verdict != Verdict::More || end <= limits.most(),
                "more than {end} bytes"
            );
            last = verdict;
            if matches!(verdict, Verdict::Is(_)) {
                break;
            }
        }
    }
    hello(bytes);
}

/// A prefix never says anything else than that more is needed, or what the whole says.
fn hello(bytes: &[u8]) {
    let whole = ClientHello::read(bytes, 1 << 12);
    let half = ClientHello::read(bytes.get(..bytes.len() / 2).unwrap_or_default(), 1 << 12);
    match half {
        Ok(None) => {}
        // What is wrong with it may show in several places.
        Err(_) => assert!(whole.is_err(), "more bytes mended what was wrong"),
        Ok(Some(_)) => assert_eq!(half, whole, "more bytes changed what was said"),
    }
}
