//! What an FTP client is told, and which requests it is spared.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sizes::ByteSize;
use super::time::Span;

/// An FTP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FtpClient {
    /// The control connection.
    pub control: FtpControl,
    /// Data connections.
    pub transfer: FtpTransfer,
    /// For either connection.
    pub connect_timeout: Span,
    /// For the server's first line.
    pub greeting_timeout: Span,
    /// Whether EPSV is tried although the server does not name it.
    pub always_try_epsv: bool,
}

impl Default for FtpClient {
    fn default() -> Self {
        Self {
            control: FtpControl::default(),
            transfer: FtpTransfer::default(),
            connect_timeout: Span::secs(30),
            greeting_timeout: Span::secs(10),
            always_try_epsv: true,
        }
    }
}

/// An FTP control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FtpControl {
    /// The longest line of a reply.
    #[serde(alias = "max_line_length")]
    pub max_line_len: ByteSize,
    /// The most lines of a reply.
    pub max_multi_lines: usize,
    /// For the reply to a command.
    pub command_timeout: Span,
}

impl Default for FtpControl {
    fn default() -> Self {
        Self {
            max_line_len: ByteSize(2048),
            max_multi_lines: 128,
            command_timeout: Span::secs(10),
        }
    }
}

/// An FTP data connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FtpTransfer {
    /// The longest line of a listing.
    #[serde(alias = "list_max_line_length")]
    pub list_max_line_len: ByteSize,
    /// The most entries of a listing.
    pub list_max_entries: usize,
    /// For a whole listing; at most five minutes.
    #[serde(deserialize_with = "list_timeout")]
    pub list_all_timeout: Span,
    /// For the reply that ends a transfer.
    pub end_wait_timeout: Span,
}

impl Default for FtpTransfer {
    fn default() -> Self {
        Self {
            list_max_line_len: ByteSize(2048),
            list_max_entries: 1024,
            list_all_timeout: Span::secs(120),
            end_wait_timeout: Span::secs(2),
        }
    }
}

fn list_timeout<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
    Span::deserialize(deserializer).map(|timeout| timeout.min(Span::secs(300)))
}

/// What a parent proxy does in our place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardCapability {
    /// `https://` requests are passed on rather than sent over TLS of our own.
    pub forward_https: bool,
    /// `ftp://` requests are passed on rather than answered by a client of our own.
    pub forward_ftp: bool,
    /// The same for GET; `forward_ftp` if not set.
    pub forward_ftp_get: Option<bool>,
    /// The same for PUT; `forward_ftp` if not set.
    pub forward_ftp_put: Option<bool>,
    /// The same for DELETE; `forward_ftp` if not set.
    pub forward_ftp_del: Option<bool>,
}

impl ForwardCapability {
    /// Whether an `ftp://` request of this method is passed on.
    pub fn forwards_ftp(&self, method: &str) -> bool {
        let own = match method {
            "GET" => self.forward_ftp_get,
            "PUT" => self.forward_ftp_put,
            "DELETE" => self.forward_ftp_del,
            _ => None,
        };
        own.unwrap_or(self.forward_ftp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn one_key_leaves_the_other_defaults() {
        // CFG-07
        let client = decode::<FtpClient>("{control: {max_line_length: 1K}, transfer: {list_all_timeout: 1h}}").unwrap();
        assert_eq!(
            client.control,
            FtpControl {
                max_line_len: ByteSize(1000),
                ..FtpControl::default()
            }
        );
        assert_eq!(
            client.transfer,
            FtpTransfer {
                list_all_timeout: Span::secs(300),
                ..FtpTransfer::default()
            }
        );
        assert_eq!(client.connect_timeout, Span::secs(30));
        assert!(decode::<FtpClient>("{timeout: 1}").is_err());
    }

    #[test]
    fn a_method_may_differ_from_the_rest() {
        let capability = decode::<ForwardCapability>("{forward_ftp: true, Forward-FTP-Put: no}").unwrap();
        assert_eq!(
            ["GET", "PUT", "DELETE"].map(|method| capability.forwards_ftp(method)),
            [true, false, true]
        );
    }
}
