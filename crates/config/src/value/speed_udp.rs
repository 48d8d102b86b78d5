//! Limits of speed of UDP sockets.

use schemars::JsonSchema;
use serde::Deserialize;

use super::speed::{DEFAULT_SHIFT, Rate, slice};
use crate::{Misfit, schema_as};

/// How much a UDP socket may move in a slice of time; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "UdpForm")]
pub struct SpeedLimitUdp {
    /// The slice is 2^this milliseconds; 0 is no limit at all.
    pub shift_millis: u8,
    /// Bytes from the client in a slice.
    pub upload_bytes: u64,
    /// Bytes to the client in a slice.
    pub download_bytes: u64,
    /// Packets from the client in a slice.
    pub upload_packets: usize,
    /// Packets to the client in a slice.
    pub download_packets: usize,
}

schema_as!(SpeedLimitUdp => UdpForm);

impl SpeedLimitUdp {
    /// Whether there is no limit.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }

    /// What holds under two limits: the slower in each respect, in the longer slice.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self.is_off() {
            return other;
        }
        if other.is_off() {
            return self;
        }
        let shift_millis = self.shift_millis.max(other.shift_millis);
        let least = |of: fn(&Self) -> u64| {
            let scaled = |limit: &Self| of(limit).saturating_mul(1 << (shift_millis - limit.shift_millis));
            match (scaled(&self), scaled(&other)) {
                (0, only) | (only, 0) => only,
                (one, two) => one.min(two),
            }
        };
        let packets = |of: fn(&Self) -> u64| usize::try_from(least(of)).unwrap_or(usize::MAX);
        Self {
            shift_millis,
            upload_bytes: least(|limit| limit.upload_bytes),
            download_bytes: least(|limit| limit.download_bytes),
            upload_packets: packets(|limit| limit.upload_packets as u64),
            download_packets: packets(|limit| limit.download_packets as u64),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "config::shape", rename_all = "snake_case")]
#[schemars(untagged, rename = "SpeedLimitUdp")]
enum UdpForm {
    Map(UdpMap),
    Text(Rate),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UdpMap {
    #[serde(alias = "shift")]
    #[schemars(range(max = 12))]
    shift_millis: Option<u8>,
    #[serde(alias = "north_bytes")]
    upload_bytes: Option<Rate>,
    #[serde(alias = "south_bytes")]
    download_bytes: Option<Rate>,
    #[serde(alias = "north_packets", default)]
    upload_packets: usize,
    #[serde(alias = "south_packets", default)]
    download_packets: usize,
}

impl TryFrom<UdpForm> for SpeedLimitUdp {
    type Error = Misfit;

    fn try_from(form: UdpForm) -> Result<Self, Misfit> {
        let limit = match form {
            UdpForm::Text(rate) => {
                let bytes = rate.in_slice(DEFAULT_SHIFT);
                Self {
                    shift_millis: DEFAULT_SHIFT,
                    upload_bytes: bytes,
                    download_bytes: bytes,
                    ..Self::default()
                }
            }
            UdpForm::Map(map) => {
                let shift_millis = slice(map.shift_millis, &[map.upload_bytes, map.download_bytes])?;
                let bytes = |rate: Option<Rate>| rate.map_or(0, |rate| rate.in_slice(shift_millis));
                Self {
                    shift_millis,
                    upload_bytes: bytes(map.upload_bytes),
                    download_bytes: bytes(map.download_bytes),
                    upload_packets: map.upload_packets,
                    download_packets: map.download_packets,
                }
            }
        };
        Ok(if limit.shift_millis == 0 {
            Self::default()
        } else {
            limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::scalar::decode;

    #[test]
    fn a_limit_is_one_number_or_a_map() {
        let limit = decode::<SpeedLimitUdp>("10M/s").unwrap();
        assert_eq!(
            (limit.shift_millis, limit.upload_bytes, limit.download_bytes),
            (10, 10_240_000, 10_240_000)
        );
        let limit = decode::<SpeedLimitUdp>("{shift: 10, north_bytes: 1K, South-Packets: 5}").unwrap();
        assert_eq!(
            (limit.upload_bytes, limit.download_bytes, limit.download_packets),
            (1000, 0, 5)
        );
        assert!(decode::<SpeedLimitUdp>("{upload_packets: 5}").unwrap().is_off());
        for yaml in ["{shift: 10, upload: 1K}", "{shift: 13}", "1.5", "[]", "true"] {
            assert!(decode::<SpeedLimitUdp>(yaml).is_err(), "{yaml}");
        }
    }

    #[test]
    fn nothing_is_no_limit_in_each_respect_alone_lm_05() {
        for yaml in [
            "0",
            "0/s",
            "{shift: 10}",
            "{shift: 10, upload_bytes: 0, upload_packets: 0}",
        ] {
            let limit = decode::<SpeedLimitUdp>(yaml).unwrap();
            let amounts = (
                limit.upload_bytes,
                limit.download_bytes,
                limit.upload_packets,
                limit.download_packets,
            );
            assert_eq!(amounts, (0, 0, 0, 0), "{yaml}");
        }
        let limit = decode::<SpeedLimitUdp>("{shift: 10, download_packets: 3}").unwrap();
        assert_eq!((limit.upload_packets, limit.download_packets), (0, 3));
    }

    #[test]
    fn no_limit_gives_way_to_one() {
        let one = SpeedLimitUdp {
            shift_millis: 10,
            upload_bytes: 1000,
            upload_packets: 8,
            ..SpeedLimitUdp::default()
        };
        let two = SpeedLimitUdp {
            shift_millis: 11,
            upload_bytes: 1000,
            download_bytes: 7,
            ..SpeedLimitUdp::default()
        };
        let both = SpeedLimitUdp {
            shift_millis: 11,
            upload_bytes: 1000,
            download_bytes: 7,
            upload_packets: 16,
            download_packets: 0,
        };
        assert_eq!(one.and(two), both);
    }
}
