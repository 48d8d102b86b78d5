//! Old names of keys, and keys that are accepted without effect.
//!
//! These two tables are the only places where a key does something else than its type says.

use crate::decode::Context;
use crate::path::Trail;

/// Keys that were renamed and are still accepted: the old name, the new one. A row counts where the new key exists.
const RENAMED: &[(&str, &str)] = &[
    ("auto_reply_local_ip_map", "transmute_udp_echo_ip"),
    ("conn_limit", "tcp_sock_speed_limit"),
    ("emit_duration", "emit_interval"),
    ("relay_limit", "udp_sock_speed_limit"),
    ("task_idle_check_duration", "task_idle_check_interval"),
    ("tcp_conn_limit", "tcp_sock_speed_limit"),
    ("tcp_conn_limit_quota", "connection_rate_limit"),
    ("tcp_conn_rate_limit", "connection_rate_limit"),
    ("tcp_conn_speed_limit", "tcp_sock_speed_limit"),
    ("udp_relay_limit", "udp_sock_speed_limit"),
    ("udp_relay_speed_limit", "udp_sock_speed_limit"),
    ("untrusted_read_limit", "untrusted_read_speed_limit"),
];

/// Where a key without effect stands.
enum Within {
    /// Directly in a node of this section and kind.
    Node(&'static str, &'static str),
    /// In the map under one of these keys.
    Key(&'static [&'static str]),
    /// Directly in this section of a daemon's own map.
    Section(&'static str),
}

/// Keys that are read past, each with a warning that says why.
const WITHOUT_EFFECT: &[(Within, &str, &str)] = &[
    (
        Within::Key(&["tls_cert_agent", "tls_cert_generator"]),
        "cache_request_batch_count",
        "nobody who asks the table of certificates waits for a turn",
    ),
    (Within::Key(SIZE_LIMITS), "smtp_greeting_msg", SMTP_GREETING),
    (Within::Key(SIZE_LIMITS), "smtp_server_greeting_msg", SMTP_GREETING),
    (
        Within::Node("resolver", "hickory"),
        "negative_max_ttl",
        "answers without addresses are kept for `negative_min_ttl`",
    ),
    (
        Within::Node("server", "http_rproxy"),
        "auditor",
        "a reverse proxy is not inspected",
    ),
    (
        Within::Node("server", "intelli_proxy"),
        "protocol_detection_channel_size",
        "detection needs no queue",
    ),
    (
        Within::Node("server", "intelli_proxy"),
        "protocol_detection_max_jobs",
        "detection needs no jobs of its own",
    ),
    (
        Within::Section("certgend.runtime"),
        "server_offline_delay",
        MINTS_AT_ONCE,
    ),
    (Within::Section("certgend.runtime"), "task_quit_timeout", MINTS_AT_ONCE),
    (Within::Section("certgend.runtime"), "task_wait_delay", MINTS_AT_ONCE),
    (Within::Section("certgend.runtime"), "task_wait_timeout", MINTS_AT_ONCE),
];

const SIZE_LIMITS: &[&str] = &["data0_size_limit", "inspection_size_limit", "protocol_inspection"];
const SMTP_GREETING: &str = "a reply line of SMTP has at most 512 bytes";
const MINTS_AT_ONCE: &str = "a mint has no task to wait for";

/// The new name of an old key, where `fields` has the new one.
pub(crate) fn renamed(key: &str, fields: &[&'static str]) -> Option<&'static str> {
    let (_, new) = RENAMED.iter().find(|(old, new)| *old == key && fields.contains(new))?;
    Some(new)
}

/// Whether the key is an old name, which no help should offer.
pub(crate) fn is_old(key: &str) -> bool {
    RENAMED.iter().any(|(old, _)| *old == key)
}

/// Why a key has no effect in the map at `trail`, if it is one of those.
pub(crate) fn without_effect(context: &Context, trail: &Trail<'_>, key: &str) -> Option<&'static str> {
    let here = |within: &Within| match within {
        Within::Node(section, kind) => {
            matches!(trail, Trail::Root) && context.section == *section && context.kind == Some(kind)
        }
        Within::Key(keys) => trail
            .last_key()
            .is_some_and(|last| keys.contains(&&*crate::node::normalise(last))),
        Within::Section(section) => matches!(trail, Trail::Root) && context.section == *section,
    };
    let (.., why) = WITHOUT_EFFECT
        .iter()
        .find(|(within, name, _)| *name == key && here(within))?;
    Some(why)
}
