//! TLS alerts (RFC 8446 §6, and the registry's older and newer ones).

use std::fmt;

/// An alert's code.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Alert(pub u8);

impl Alert {
    /// `bad_certificate`: the certificate cannot be right, whoever has signed it.
    pub const BAD_CERTIFICATE: Self = Self(42);
    /// `unsupported_certificate`: the certificate is not made for this use.
    pub const UNSUPPORTED_CERTIFICATE: Self = Self(43);
    /// `certificate_revoked`: its signer has taken the certificate back.
    pub const CERTIFICATE_REVOKED: Self = Self(44);
    /// `certificate_expired`: the certificate is not valid now.
    pub const CERTIFICATE_EXPIRED: Self = Self(45);
    /// `certificate_unknown`: something else is wrong with the certificate.
    pub const CERTIFICATE_UNKNOWN: Self = Self(46);
    /// `unknown_ca`: no trusted authority has signed the certificate.
    pub const UNKNOWN_CA: Self = Self(48);
    /// `access_denied`: whoever decides does not want this connection.
    pub const ACCESS_DENIED: Self = Self(49);
    /// `decode_error`: a message cannot be read.
    pub const DECODE_ERROR: Self = Self(50);
    /// `handshake_failure`: the two sides have no parameters in common.
    pub const HANDSHAKE_FAILURE: Self = Self(40);
    /// `internal_error`: something failed that is not the peer's fault.
    pub const INTERNAL_ERROR: Self = Self(80);
    /// `unrecognized_name`: there is no server of the name that was asked for.
    pub const UNRECOGNIZED_NAME: Self = Self(112);
    /// `no_application_protocol`: the server speaks none of those that it was offered.
    pub const NO_APPLICATION_PROTOCOL: Self = Self(120);
    /// `close_notify`: the peer will send nothing more.
    pub const CLOSE_NOTIFY: Self = Self(0);
    /// `user_canceled`: the peer's user ended it.
    pub const USER_CANCELED: Self = Self(90);

    /// Whether the alert means an orderly end rather than an error.
    #[must_use]
    pub fn is_orderly(self) -> bool {
        matches!(self, Self::CLOSE_NOTIFY | Self::USER_CANCELED)
    }

    /// Whether a client says by it that it does not accept the certificate that it was shown.
    #[must_use]
    pub fn refuses_certificate(self) -> bool {
        matches!(
            self,
            Self::BAD_CERTIFICATE
                | Self::UNSUPPORTED_CERTIFICATE
                | Self::CERTIFICATE_REVOKED
                | Self::CERTIFICATE_EXPIRED
                | Self::CERTIFICATE_UNKNOWN
                | Self::UNKNOWN_CA
        )
    }

    /// The record that tells a peer of it, as long as no keys are agreed on (RFC 8446 §5.1, §6).
    pub(crate) fn fatal_record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self.0]
    }

    /// The registered name.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            21 => "decryption_failed",
            22 => "record_overflow",
            30 => "decompression_failure",
            40 => "handshake_failure",
            41 => "no_certificate",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            52 => "too_many_cids_requested",
            60 => "export_restriction",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            111 => "certificate_unobtainable",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            114 => "bad_certificate_hash_value",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            121 => "ech_required",
            _ => return None,
        })
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}
