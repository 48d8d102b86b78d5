//! Lists of name servers as they are written.

use std::net::{IpAddr, SocketAddr};

use schemars::JsonSchema;
use serde::Deserialize;

/// A name server that can be asked: neither unspecified nor multicast.
fn check(ip: IpAddr) -> Result<IpAddr, String> {
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(format!("`{ip}` is not the address of a server"));
    }
    Ok(ip)
}

/// A string of words or a list of strings.
#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "ServerList")]
enum Form {
    Str(String),
    Seq(Vec<String>),
}

impl Form {
    /// The words as `T`, each once; there must be one.
    fn read<T: PartialEq>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let words: Vec<&str> = match self {
            Self::Str(text) => text.split_whitespace().collect(),
            Self::Seq(words) => words.iter().map(|word| word.trim()).collect(),
        };
        let mut servers = Vec::new();
        for word in words {
            let server = read(word)?;
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        if servers.is_empty() {
            Err("there is no server in it".to_owned())
        } else {
            Ok(servers)
        }
    }
}

/// Servers by address, all on the same port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Form")]
pub(crate) struct Ips(pub(crate) Vec<IpAddr>);

impl TryFrom<Form> for Ips {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let ip = |word: &str| {
            let ip = word.parse().map_err(|_| format!("`{word}` is not an IP address"))?;
            check(ip)
        };
        form.read(ip).map(Self)
    }
}

/// Servers by address, with a port or on port 53.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Form")]
pub(crate) struct Sockets(pub(crate) Vec<SocketAddr>);

impl TryFrom<Form> for Sockets {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let socket = |word: &str| {
            let ip = word
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map(|ip: IpAddr| (ip, 53).into());
            let socket: SocketAddr = word
                .parse()
                .or(ip)
                .map_err(|_| format!("`{word}` is not an IP address with or without a port"))?;
            check(socket.ip()).map(|_| socket)
        };
        form.read(socket).map(Self)
    }
}
