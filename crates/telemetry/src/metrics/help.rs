//! What each metric means, for the `HELP` lines of the OpenMetrics page.

/// The meaning of `name`, given without prefix.
pub(super) fn help(name: &str) -> Option<&'static str> {
    let known = |name: &str| {
        let found = HELP.binary_search_by(|(known, _)| (*known).cmp(name));
        found.ok().and_then(|at| HELP.get(at)).map(|(_, help)| *help)
    };
    // `user.site.<site_id>.` + what a user has too.
    match name.strip_prefix("user.site.") {
        Some(site) => {
            let mut rest = site;
            loop {
                let (_, suffix) = rest.split_once('.')?;
                if let Some(help) = known(&format!("user.{suffix}")) {
                    return Some(help);
                }
                rest = suffix;
            }
        }
        None => known(name),
    }
}

/// Sorted by name.
const HELP: &[(&str, &str)] = &[
    ("audit.batch.refused", "Batches of senders that had to say hello again"),
    ("audit.batch.total", "Batches of records taken"),
    ("audit.file.bytes", "Bytes of all files"),
    ("audit.file.compressed", "Files compressed"),
    ("audit.file.count", "Files that are there"),
    ("audit.file.deleted", "Files deleted to keep to the limits"),
    ("audit.file.rotated", "Files closed"),
    ("audit.flow.alive", "Recorded streams that have not ended"),
    ("audit.record.lost", "Records that senders have lost"),
    ("audit.record.malformed", "Records that make no sense"),
    ("audit.record.total", "Records taken"),
    ("audit.sender.batch.pass", "Batches that auditd has written"),
    ("audit.sender.batch.resent", "Batches sent again"),
    ("audit.sender.connected", "Whether auditd answers"),
    (
        "audit.sender.drop.bytes",
        "Bytes of records lost because the queue was full",
    ),
    ("audit.sender.record.drop", "Records lost because the queue was full"),
    ("audit.sender.record.total", "Records queued for auditd"),
    ("audit.sender.waiting.bytes", "Bytes that wait for auditd"),
    ("audit.udp.malformed", "Datagrams that are no exported PDUs"),
    ("audit.udp.total", "Datagrams taken"),
    ("audit.write.bytes", "Bytes written"),
    ("audit.write.failed", "Attempts to write that failed"),
    ("audit.write.stuck", "Whether nothing can be written"),
    (
        "auditor.inspect.blocked",
        "Layers of streams that were refused for their protocol",
    ),
    (
        "auditor.inspect.total",
        "Layers of streams whose protocol was looked for",
    ),
    (
        "auditor.tls.bypass",
        "TLS streams that passed untouched, since they could not be opened",
    ),
    (
        "auditor.tls.obstacle",
        "TLS streams that met something that stands against opening them",
    ),
    ("backend.refresh_ok", "Keys made for certificates that mirror none"),
    ("backend.refresh_total", "Keys begun for certificates that mirror none"),
    (
        "backend.request_cached",
        "Requests answered with a certificate made before",
    ),
    ("backend.request_duration", "Nanoseconds from a request to its answer"),
    (
        "backend.request_fallback",
        "Certificates that could not mirror everything",
    ),
    ("backend.request_ok", "Requests answered with a certificate"),
    ("backend.request_refused", "Requests answered with an error"),
    ("backend.request_total", "Requests understood"),
    ("escaper.connection.attempt", "Connections attempted to the remote"),
    (
        "escaper.connection.establish",
        "Connections to the remote established and used",
    ),
    (
        "escaper.forbidden.ip_blocked",
        "Attempts refused because the resolved address is blocked",
    ),
    ("escaper.task.total", "Requests that used the escaper"),
    ("escaper.tcp.connect.attempt", "TCP connects to the next peer attempted"),
    ("escaper.tcp.connect.error", "TCP connects that failed"),
    ("escaper.tcp.connect.establish", "TCP connections handed to tasks"),
    ("escaper.tcp.connect.success", "TCP connects that succeeded"),
    ("escaper.tcp.connect.timeout", "TCP connects that timed out"),
    (
        "escaper.tls.handshake.error",
        "TLS handshakes with the next proxy that failed",
    ),
    (
        "escaper.tls.handshake.success",
        "TLS handshakes with the next proxy that succeeded",
    ),
    (
        "escaper.tls.handshake.timeout",
        "TLS handshakes with the next proxy that timed out",
    ),
    ("escaper.tls.peer.closure.abortive", "Fatal alerts from TLS peers"),
    ("escaper.tls.peer.closure.orderly", "Closing alerts from TLS peers"),
    (
        "escaper.traffic.in.bytes",
        "Bytes from the remote above the transport layer",
    ),
    ("escaper.traffic.in.packets", "Datagrams from the remote"),
    (
        "escaper.traffic.out.bytes",
        "Bytes to the remote above the transport layer",
    ),
    ("escaper.traffic.out.packets", "Datagrams to the remote"),
    ("frontend.request_invalid", "Messages that are no request"),
    ("frontend.request_total", "Messages received"),
    ("frontend.response_fail", "Responses that could not be sent"),
    ("frontend.response_total", "Responses"),
    ("listen.accepted", "Connections accepted"),
    (
        "listen.dropped",
        "Connections dropped early by rule or for want of a usable set-up",
    ),
    ("listen.failed", "Accept errors and failed early negotiations"),
    ("listen.instance.count", "Listening sockets now open"),
    ("listen.timeout", "Early negotiations that timed out"),
    ("logger.message.drop", "Records lost"),
    ("logger.message.pass", "Records handed to the next hop"),
    ("logger.message.total", "Records offered"),
    ("logger.traffic.pass", "Bytes handed to the next hop"),
    ("resolver.memory.cache.capacity", "Capacity of the result table"),
    ("resolver.memory.cache.length", "Entries in the result table"),
    (
        "resolver.memory.doing.capacity",
        "Capacity of the table of running queries",
    ),
    (
        "resolver.memory.doing.length",
        "Entries in the table of running queries",
    ),
    (
        "resolver.memory.trash.capacity",
        "Capacity of the table of expired entries",
    ),
    (
        "resolver.memory.trash.length",
        "Entries in the table of expired entries",
    ),
    ("resolver.query.cached", "Queries answered from the cache"),
    (
        "resolver.query.driver.malformed",
        "Driver queries with a malformed answer",
    ),
    (
        "resolver.query.driver.refused",
        "Driver queries with a refused connection",
    ),
    ("resolver.query.driver.timeout", "Driver queries that timed out"),
    ("resolver.query.driver.total", "Queries sent to DNS servers"),
    ("resolver.query.server.malformed", "Answers FORMERR"),
    (
        "resolver.query.server.not_found",
        "Answers that the name does not exist",
    ),
    ("resolver.query.server.refused", "Answers REFUSED"),
    ("resolver.query.server.serv_fail", "Answers SERVFAIL"),
    ("resolver.query.total", "Queries received"),
    ("resolver.query.trashed", "Queries answered from expired entries"),
    (
        "route.request.failed",
        "Requests for which no next escaper could be chosen",
    ),
    ("route.request.passed", "Requests routed"),
    ("runtime.tokio.alive_tasks", "Live tasks of the runtime"),
    (
        "runtime.tokio.global_queue_depth",
        "Tasks that wait in the global queue of the runtime",
    ),
    ("server.connection.total", "Client connections handled by the server"),
    (
        "server.forbidden.auth_failed",
        "Requests without or with a wrong credential",
    ),
    (
        "server.forbidden.dest_denied",
        "Requests whose destination is refused by the server",
    ),
    ("server.forbidden.user_blocked", "Requests of blocked users"),
    ("server.task.alive", "Tasks running now"),
    ("server.task.total", "Tasks started"),
    ("server.task.untrusted_alive", "Unauthenticated requests draining now"),
    (
        "server.task.untrusted_total",
        "Unauthenticated requests whose body must be drained",
    ),
    (
        "server.traffic.in.bytes",
        "Bytes from clients above the transport layer",
    ),
    ("server.traffic.in.packets", "Datagrams from clients"),
    ("server.traffic.out.bytes", "Bytes to clients above the transport layer"),
    ("server.traffic.out.packets", "Datagrams to clients"),
    (
        "server.traffic.untrusted_in.bytes",
        "Bytes drained from unauthenticated clients",
    ),
    ("user.connection.total", "Connections that authenticated as the user"),
    ("user.forbidden.auth_failed", "Wrong passwords"),
    ("user.forbidden.dest_denied", "Destinations refused"),
    (
        "user.forbidden.fully_loaded",
        "Requests over the number allowed at once",
    ),
    ("user.forbidden.ip_blocked", "Resolved addresses refused"),
    (
        "user.forbidden.log_skipped",
        "Log records left out by the log rate limit",
    ),
    ("user.forbidden.proto_banned", "Requests of a kind that is not allowed"),
    ("user.forbidden.rate_limited", "Requests over the rate allowed"),
    (
        "user.forbidden.src_blocked",
        "Requests from client addresses that are refused",
    ),
    ("user.forbidden.ua_blocked", "User agents refused"),
    ("user.forbidden.user_blocked", "Requests while the user was blocked"),
    ("user.forbidden.user_expired", "Requests after the user expired"),
    ("user.l7.connection.alive", "Live layer 7 connections of the user"),
    ("user.request.alive", "Requests running now"),
    ("user.request.ready", "Requests that reached the ready state"),
    (
        "user.request.renew",
        "Reuses of upstream connections that failed and were tried again",
    ),
    ("user.request.reuse", "Kept upstream connections taken again"),
    ("user.request.total", "Requests started"),
    (
        "user.task.ready.duration",
        "Quantiles of the time from creation to relaying, in nanoseconds",
    ),
    ("user.traffic.in.bytes", "Bytes from the user"),
    ("user.traffic.in.packets", "Datagrams from the user"),
    ("user.traffic.out.bytes", "Bytes to the user"),
    ("user.traffic.out.packets", "Datagrams to the user"),
    ("user.upstream.traffic.in.bytes", "Bytes from the upstream"),
    ("user.upstream.traffic.in.packets", "Datagrams from the upstream"),
    ("user.upstream.traffic.out.bytes", "Bytes to the upstream"),
    ("user.upstream.traffic.out.packets", "Datagrams to the upstream"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_the_search_finds_everything() {
        assert!(HELP.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(help("listen.accepted"), Some("Connections accepted"));
        assert_eq!(help("nothing.such"), None);
    }

    #[test]
    fn a_site_has_the_meanings_of_its_user() {
        assert_eq!(help("user.site.shop.request.alive"), Some("Requests running now"));
        assert_eq!(help("user.site.a.b.request.alive"), Some("Requests running now"));
        assert_eq!(help("user.site.a"), None);
    }
}
