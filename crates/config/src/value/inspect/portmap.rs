//! Which protocols are expected on which ports.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::schema_as;
use crate::value::lists::OneOrMany;
use crate::value::scalar::{Raw, Scalar, UNFIT, scalar};

/// A protocol that a stream may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Protocol {
    Bittorrent,
    Dns,
    Ftp,
    Http,
    Imap,
    Ldap,
    Mqtt,
    Nats,
    Nnsp,
    Nntp,
    Odmr,
    Pop3,
    Rtmp,
    Rtsp,
    Smpp,
    Smtp,
    Ssh,
    Stomp,
}

/// What a stream is looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MaybeProtocol {
    /// The protocol, plain or inside TLS; `None` if only TLS is looked for.
    pub protocol: Option<Protocol>,
    /// Whether it may come in TLS.
    pub tls: bool,
}

/// The words, in lower case with `_` for `-`.
fn of_word(word: &str) -> Option<MaybeProtocol> {
    use Protocol::*;
    if let Some(plain) = word.strip_suffix("+tls") {
        let plain = of_word(plain).filter(|maybe| !maybe.tls)?;
        let known = matches!(plain.protocol, Some(Http | Pop3 | Nntp | Imap | Rtsp | Rtmp));
        return known.then_some(MaybeProtocol { tls: true, ..plain });
    }
    let (protocol, tls) = match word {
        "bittorrent" | "bt" => (Bittorrent, false),
        "dns" => (Dns, false),
        "dot" | "dnsovertls" | "dns_over_tls" => (Dns, true),
        "ftp" => (Ftp, false),
        "http" => (Http, false),
        "https" => (Http, true),
        "imap" => (Imap, false),
        "imaps" => (Imap, true),
        "ldap" => (Ldap, false),
        "ldaps" => (Ldap, true),
        "mqtt" => (Mqtt, false),
        "secure_mqtt" => (Mqtt, true),
        "nats" => (Nats, false),
        "nnsp" => (Nnsp, false),
        "nntp" => (Nntp, false),
        "nntps" | "snntp" => (Nntp, true),
        "odmr" => (Odmr, false),
        "pop3" => (Pop3, false),
        "pop3s" => (Pop3, true),
        "rtmp" => (Rtmp, false),
        "rtmps" => (Rtmp, true),
        "rtsp" => (Rtsp, false),
        "rtsps" => (Rtsp, true),
        "smpp" => (Smpp, false),
        "smpps" | "ssmpp" | "secure smpp" => (Smpp, true),
        "smtp" => (Smtp, false),
        "smtps" | "submissions" => (Smtp, true),
        "ssh" => (Ssh, false),
        "ssl" | "tls" => {
            return Some(MaybeProtocol {
                protocol: None,
                tls: true,
            });
        }
        "stomp" => (Stomp, false),
        _ => return None,
    };
    Some(MaybeProtocol {
        protocol: Some(protocol),
        tls,
    })
}

impl Scalar for MaybeProtocol {
    const EXPECTED: &'static str = "a protocol such as `http`, `https`, `smtp`, `ssh`, `ftp`, `imap`, `nats`, `tls`";

    fn read(raw: Raw<'_>) -> Result<Self, Cow<'static, str>> {
        let Raw::Str(word) = raw else { return Err(UNFIT) };
        of_word(&word.to_lowercase().replace('-', "_")).ok_or(UNFIT)
    }
}

scalar!(MaybeProtocol, {"type": "string"});

/// Entries as they are written, which are added to those that are there by default.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "Portmap")]
enum Entries {
    Map(#[schemars(with = "BTreeMap<String, OneOrMany<MaybeProtocol>>")] BTreeMap<u16, OneOrMany<MaybeProtocol>>),
    Seq(Vec<Element>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Element {
    port: u16,
    protocol: OneOrMany<MaybeProtocol>,
}

type Table = BTreeMap<u16, Vec<MaybeProtocol>>;

fn defaults(words: &[(u16, &str)]) -> Table {
    words
        .iter()
        .filter_map(|(port, word)| Some((*port, vec![of_word(word)?])))
        .collect()
}

fn add(table: &mut Table, entries: Entries) {
    let entries: Vec<_> = match entries {
        Entries::Map(map) => map.into_iter().collect(),
        Entries::Seq(elements) => elements
            .into_iter()
            .map(|element| (element.port, element.protocol))
            .collect(),
    };
    for (port, protocols) in entries {
        let all = table.entry(port).or_default();
        for protocol in protocols {
            if !all.contains(&protocol) {
                all.push(protocol);
            }
        }
    }
}

macro_rules! portmap {
    ($(#[$doc:meta])* $Map:ident: $defaults:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(from = "Entries")]
        pub struct $Map(Table);

        schema_as!($Map => Entries);

        impl $Map {
            /// What is expected on a port.
            pub fn at(&self, port: u16) -> &[MaybeProtocol] {
                self.0.get(&port).map_or(&[], Vec::as_slice)
            }

            /// What is expected, by port.
            pub fn iter(&self) -> impl Iterator<Item = (u16, &[MaybeProtocol])> {
                self.0.iter().map(|(port, all)| (*port, all.as_slice()))
            }
        }

        impl Default for $Map {
            fn default() -> Self {
                Self(defaults($defaults))
            }
        }

        impl From<Entries> for $Map {
            fn from(entries: Entries) -> Self {
                let mut map = Self::default();
                add(&mut map.0, entries);
                map
            }
        }
    };
}

portmap! {
    /// The protocols that servers speak by their port.
    ServerPortmap: &[
        (21, "ftp"), (22, "ssh"), (25, "smtp"), (53, "dns"), (80, "http"), (110, "pop3"), (119, "nntp"), (143, "imap"),
        (322, "rtsps"), (366, "odmr"), (389, "ldap"), (433, "nnsp"), (443, "https"), (465, "submissions"),
        (554, "rtsp"), (563, "nntps"), (587, "smtp"), (636, "ldaps"), (853, "dot"), (993, "imaps"), (995, "pop3s"),
        (1883, "mqtt"), (1935, "rtmp"), (2775, "smpp"), (3550, "ssmpp"), (4222, "nats"), (6881, "bittorrent"),
        (8080, "http"), (8554, "rtsp"), (8883, "secure_mqtt"),
    ]
}

portmap! {
    /// The protocols that clients speak by their port.
    ClientPortmap: &[(6881, "bittorrent")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    const HTTPS: MaybeProtocol = MaybeProtocol {
        protocol: Some(Protocol::Http),
        tls: true,
    };

    #[test]
    fn protocols_have_many_names() {
        for (yaml, protocol, tls) in [
            ("HTTPS", Some(Protocol::Http), true),
            ("http+tls", Some(Protocol::Http), true),
            ("bt", Some(Protocol::Bittorrent), false),
            ("secure-mqtt", Some(Protocol::Mqtt), true),
            ("Secure SMPP", Some(Protocol::Smpp), true),
            ("dns-over-tls", Some(Protocol::Dns), true),
            ("ssl", None, true),
        ] {
            assert_eq!(decode(yaml), Ok(MaybeProtocol { protocol, tls }), "{yaml}");
        }
        for yaml in ["gopher", "ssh+tls", "https+tls", "80", "''"] {
            assert!(decode::<MaybeProtocol>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn every_default_has_its_protocol() {
        assert_eq!(ServerPortmap::default().0.len(), 30);
        assert_eq!(ServerPortmap::default().at(443), [HTTPS]);
        assert_eq!(ClientPortmap::default().at(6881).len(), 1);
    }

    #[test]
    fn entries_are_added_to_the_defaults() {
        for yaml in [
            "{8443: https, 443: [https, ssh]}",
            "[{port: 8443, protocol: https}, {port: '443', protocol: ssh}]",
        ] {
            let map = decode::<ServerPortmap>(yaml).unwrap();
            assert_eq!(map.at(8443), [HTTPS], "{yaml}");
            assert_eq!(map.at(443).len(), 2, "{yaml}");
            assert_eq!(map.at(22).len(), 1, "{yaml}");
        }
        for yaml in ["{http: 80}", "{70000: http}", "[{port: 1}]", "https", "{443: gopher}"] {
            assert!(decode::<ServerPortmap>(yaml).is_err(), "{yaml}");
        }
    }
}
