//! What auditd reads of the main file.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use sluice_config::Load;
use sluice_config::value::{ByteSize, FilePath, SockAddrSpec, Span};

/// Below this a file would hold next to nothing, and its folder files without end.
const MIN_SIZE: u64 = 4096;
const MIN_AGE: Duration = Duration::from_secs(1);

/// The `auditd` section.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AuditdConfig {
    /// Where captures and event logs are written. Default: `/var/lib/sluice/audit/GROUP`, or the user's own state
    /// directory where that may not be written to; `audit` in a runtime directory of one's own (`-C`).
    pub(crate) directory: Option<FilePath>,
    /// What packets of a capture are. Default: pdu.
    pub(crate) format: Format,
    /// When a new file is begun.
    pub(crate) rotate: RotateConfig,
    /// What is kept of closed files.
    pub(crate) keep: KeepConfig,
    /// How closed files are compressed. Default: gzip.
    pub(crate) compress: Compress,
    /// How often what is written is made to reach the disk; `0s`: before each acknowledgement. Default: 1s.
    pub(crate) fsync: Span,
    /// Whether followers may listen in on `auditd/live`: what they get is decrypted traffic. Default: false.
    pub(crate) live: bool,
    /// An address that takes exported PDUs over UDP from anybody who can reach it, as udpdump does. Default: none.
    pub(crate) listen: Option<SockAddrSpec>,
}

impl Default for AuditdConfig {
    fn default() -> Self {
        Self {
            directory: None,
            format: Format::Pdu,
            rotate: RotateConfig::default(),
            keep: KeepConfig::default(),
            compress: Compress::Gzip,
            fsync: Span::secs(1),
            live: false,
            listen: None,
        }
    }
}

impl AuditdConfig {
    /// Refuses limits under which nothing can be kept.
    pub(crate) fn check(&self, load: &mut Load) {
        let Some(place) = load.place("auditd") else { return };
        let (rotate, keep) = (&self.rotate, &self.keep);
        for (path, is_nothing, wanted) in [
            ("rotate.size", rotate.size.0 < MIN_SIZE, "at least 4KiB"),
            ("rotate.age", rotate.age.0 < MIN_AGE, "at least 1s"),
            ("keep.size", keep.size.0 < MIN_SIZE, "at least 4KiB"),
            ("keep.age", keep.age.0 < MIN_AGE, "at least 1s"),
            ("keep.files", keep.files == Some(0), "at least 1, the open file"),
        ] {
            if is_nothing {
                load.error(&place, path, format!("must be {wanted}"));
            }
        }
    }
}

/// What packets of a capture are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// Exported PDUs of Wireshark: both connections and the protocol are named in each packet.
    Pdu,
    /// TCP/IP packets made of the pieces, for any tool.
    Tcp,
}

/// When a new file is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RotateConfig {
    /// Once a file is that long. Default: 256MiB.
    pub(crate) size: ByteSize,
    /// Once a file is that old. Default: 1h.
    pub(crate) age: Span,
}

impl Default for RotateConfig {
    fn default() -> Self {
        Self {
            size: ByteSize::mib(256),
            age: Span::secs(3600),
        }
    }
}

/// What is kept of closed files; the oldest ones are deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KeepConfig {
    /// So many bytes in all, the open files included. Default: 10GiB.
    pub(crate) size: ByteSize,
    /// None that was closed before this time. Default: 30d.
    pub(crate) age: Span,
    /// So many files of each kind, the open one included. Default: no limit.
    pub(crate) files: Option<usize>,
}

impl Default for KeepConfig {
    fn default() -> Self {
        Self {
            size: ByteSize(10 << 30),
            age: Span::secs(30 * 24 * 3600),
            files: None,
        }
    }
}

/// How closed files are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Compress {
    /// By gzip, which Wireshark's programs read as it is.
    Gzip,
    /// Not at all.
    None,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_under_which_nothing_is_kept_are_refused() {
        for (keys, told) in [
            ("rotate: {size: 10}", "auditd.rotate.size: must be at least 4KiB"),
            ("rotate: {age: 0s}", "auditd.rotate.age: must be at least 1s"),
            ("keep: {size: 0}", "auditd.keep.size: must be at least 4KiB"),
            ("keep: {age: 0s}", "auditd.keep.age: must be at least 1s"),
            ("keep: {files: 0}", "auditd.keep.files: must be at least 1"),
            ("keep: {files: 1, size: 4KiB, age: 1s}", ""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("main.yml");
            std::fs::write(&file, format!("auditd: {{{keys}}}\n")).unwrap();
            let mut load = Load::open(&file);
            let own: AuditdConfig = load.section("auditd").unwrap();
            own.check(&mut load);
            let found = load.finish().err().map(|errors| errors.to_string()).unwrap_or_default();
            assert!(
                found.contains(told) && found.is_empty() == told.is_empty(),
                "{keys}: {found}"
            );
        }
    }
}
