use std::time::Duration;

use hickory_net::proto::{op::ResponseCode, rr::RecordType};
use sluice_config::Load;
use sluice_lifecycle::Tasks;
use sluice_wire::dns::{
    Family::{V4, V6},
    ResolveError,
};

use super::*;
use crate::{
    config::Config,
    nameserver::{NameServer, Says, a, cname, v4},
};

/// Reads a `resolver` section; the errors as one text without the folder.
fn read(yaml: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("main.yml");
    std::fs::write(&file, yaml).unwrap();
    let mut load = Load::open(&file);
    let config = Config::read(&mut load);
    let folder = format!("{}/", dir.path().display());
    load.finish()
        .map(|_| config)
        .map_err(|errors| errors.to_string().replace(&folder, ""))
}

fn kind(node: &str) -> Result<ResolverConfig, String> {
    let config = read(&format!(
        "resolver:\n  - {{name: a, {node}}}\n  - {{name: b, type: deny_all}}\n"
    ))?;
    Ok(config.resolvers[0].value.clone())
}

fn fields(node: &str) -> String {
    let fields = kind(node).unwrap().log_fields();
    fields
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn every_spelling_of_a_kind_is_known() {
    for word in ["c_ares", "c-ares", "cares", "CAres"] {
        assert_eq!(kind(&format!("type: {word}")).unwrap().kind(), "c-ares", "{word}");
    }
    for word in ["hickory", "hickory_dns", "hickorydns", "trust_dns", "TrustDns"] {
        assert_eq!(
            kind(&format!("type: {word}, server: 127.0.0.1")).unwrap().kind(),
            "hickory",
            "{word}"
        );
    }
    for word in ["fail_over", "fail-over", "failover"] {
        let node = format!("type: {word}, primary: b, standby: c}}\n  - {{name: c, type: deny-all");
        assert_eq!(kind(&node).unwrap().kind(), "fail-over", "{word}");
    }
    assert_eq!(kind("type: denyall").unwrap().kind(), "deny-all");
}

#[test]
fn all_keys_of_hickory_are_taken() {
    let node = "type: hickory, server: \"127.0.0.1 ::1 127.0.0.1\", server_port: 5353, encrypt: dns.example.net,
        connect_timeout: 3s, request_timeout: 4s, retry_attempts: -1, each_timeout: 2s, retry_interval: 500ms,
        bind_interface: lo, tcp_misc_opts: {no_delay: false}, udp_misc_opts: {ttl: 9}, positive_min_ttl: 1,
        positive_max_ttl: \"2\", negative_ttl: 3, graceful_stop_wait: 1s, protective_query_timeout: 9s,
        negative_max_ttl: anything";
    let config = kind(node).unwrap();
    let common = config.common();
    assert_eq!(common.protective_query_timeout, Duration::from_secs(9));
    assert_eq!(common.ttl, TtlBounds::new(1, 2, 3));
    assert_eq!(
        fields(node),
        "bind_addr=lo, server=127.0.0.1 ::1, server_port=5353, encryption=dns-over-tls"
    );
}

#[test]
fn of_two_bind_keys_the_later_counts() {
    let server = "type: hickory, server: 127.0.0.1";
    assert!(fields(&format!("{server}, bind_ip: 127.0.0.2, bind_interface: lo")).contains("bind_addr=lo"));
    assert!(fields(&format!("{server}, bind_interface: lo, bind_ip: 127.0.0.2")).contains("bind_addr=127.0.0.2"));
}

#[test]
fn encryption_is_a_protocol_a_name_or_a_map() {
    for (form, expected) in [
        ("dns-over-https", "server_port=443, encryption=dns-over-https"),
        ("DNS_over_TLS", "server_port=853, encryption=dns-over-tls"),
        ("dns-over-http/3", "server_port=443, encryption=dns-over-http/3"),
        ("dns-over-quic", "server_port=853, encryption=dns-over-quic"),
        ("dns.example.net", "server_port=853, encryption=dns-over-tls"),
        (
            "{tls_name: a.test, protocol: dnsoverquic}",
            "server_port=853, encryption=dns-over-quic",
        ),
        (
            "{tls_name: 127.0.0.1, protocol: h3}",
            "server_port=443, encryption=dns-over-http/3",
        ),
        (
            "{tls_name: a.test, protocol: h2, tls_client: {no_session_cache: true}}",
            "server_port=443, encryption=dns-over-https",
        ),
    ] {
        let shown = fields(&format!("type: hickory, server: 127.0.0.1, encryption: {form}"));
        assert!(shown.ends_with(expected), "{form}: {shown}");
    }
}

#[tokio::test]
async fn transports_are_built_as_configured() {
    for (form, transport) in [
        ("h3", "dns-over-http/3"),
        ("doh", "dns-over-https"),
        ("doq", "dns-over-quic"),
    ] {
        let config = kind(&format!("type: hickory, server: 127.0.0.1, encryption: {form}")).unwrap();
        let servers = config.servers(Path::new("/"), Tasks::new()).unwrap().unwrap();
        assert_eq!(servers.conditions()[0].transport, transport);
    }
}

#[test]
fn all_keys_of_c_ares_are_taken() {
    let node = "type: c_ares, server: [\"127.0.0.1\", \"127.0.0.1:5353\", \"::1\", \"[::1]:5354\", \"[::1]\"],
        each_timeout: 100, each_tries: 3, max_timeout: 300, udp_max_quires: -1, round_robin: yes,
        socket_send_buffer_size: 65536, socket_recv_buffer_size: 65536, bind_ipv4: 127.0.0.1, bind_ipv6: \"::1\",
        positive_min_ttl: 1, maximum_cache_ttl: 2, protective_cache_ttl: 3";
    assert_eq!(
        fields(node),
        "bind_ipv4=127.0.0.1, bind_ipv6=::1, server=127.0.0.1:53 127.0.0.1:5353 [::1]:53 [::1]:5354"
    );
    let ResolverConfig::CAres(config) = kind(node).unwrap() else {
        unreachable!()
    };
    assert_eq!(config.common().ttl, TtlBounds::new(1, 2, 3));
    let plan = config.plan(2);
    let steps: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.server, step.wait.as_millis()))
        .collect();
    assert_eq!(steps, [(0, 100), (1, 100), (0, 200), (1, 200), (0, 300), (1, 300)]);
    assert!(plan.rotate);
}

#[test]
fn the_systems_servers_are_found() {
    let text = "# nameserver 192.0.2.9\nsearch a.test\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # x\nnameserver 192.0.2.1\nnameserver fe80::1%2\noptions x\n";
    let servers: Vec<String> = c_ares::name_servers(text).iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%2]:53"]);
    assert_eq!(c_ares::name_servers("").len(), 1);
}

/// What is wrong, where, and what it should be.
#[test]
fn mistakes_are_named_at_their_place() {
    for (node, expected) in [
        ("type: hickory", "main.yml:2:5: resolver[0] `a`: `server` is missing"),
        (
            "type: hickory, server: 0.0.0.0",
            "`0.0.0.0` is not the address of a server",
        ),
        (
            "type: hickory, server: 127.0.0.1:53",
            "`127.0.0.1:53` is not an IP address",
        ),
        ("type: hickory, server: \"\"", "there is no server in it"),
        (
            "type: c_ares, server: 224.0.0.1",
            "`224.0.0.1` is not the address of a server",
        ),
        (
            "type: hickory, server: 127.0.0.1, encryption: \"no name\"",
            "`no name` is neither a domain nor an address",
        ),
        (
            "type: hickory, server: 127.0.0.1, encryption: {protocol: dot}",
            "`tls_name` is missing",
        ),
        (
            "type: hickory, server: 127.0.0.1, encryption: {tls_name: a, protocol: dnscrypt}",
            "`dns-over-tls`",
        ),
        (
            "type: hickory, server: 127.0.0.1, bind_ip: \"::1\"",
            "the server `127.0.0.1` is of the other address family than `::1`",
        ),
        (
            "type: hickory, server: 127.0.0.1, each_trys: 2",
            "did you mean `each_tries`?",
        ),
        ("type: deny_all, positive_min_ttl: 3", "positive_min_ttl"),
        ("type: fail_over, primary: b, standby: bb", "no resolver is named `bb`"),
        (
            "type: fail_over, primary: b, standby: b",
            "`standby` is the same resolver as `primary`",
        ),
        (
            "type: fail_over, primary: b, standby: a",
            "the resolver `a` refers to itself",
        ),
    ] {
        let errors = kind(node).unwrap_err();
        assert!(errors.contains(expected), "{node}: {errors}");
    }
    let errors = read(
        "resolver:\n  - {name: a, type: fail_over, primary: b, standby: c}\n  - {name: b, type: fail_over, primary: a, standby: c}\n  - {name: c, type: deny_all}\n",
    )
    .err()
    .unwrap();
    assert!(errors.contains("main.yml:2:"), "{errors}");
    assert!(errors.contains("main.yml:3:"), "{errors}");
    assert!(errors.contains("loop"), "{errors}");
}

#[test]
fn listen_addresses_are_checked() {
    let with = |listen: &str| {
        read(&format!(
            "resolver: [{{name: a, type: deny_all}}]\nresolverd: {{listen: {listen}, allow_uid: [0, root, \"5\"]}}\n"
        ))
    };
    let config = with("{address: \"127.0.0.1:53\", resolver: a}").unwrap();
    assert_eq!(
        config.own.allow_uid.iter().map(|user| user.0).collect::<Vec<_>>(),
        [0, 0, 5]
    );
    let listen = &config.own.listen[0];
    let allowed = |ip: &str| {
        listen
            .allow
            .iter()
            .any(|network| network.0.contains(&ip.parse::<std::net::IpAddr>().unwrap()))
    };
    assert!(allowed("127.0.0.9") && allowed("::1") && !allowed("192.0.2.1"));
    assert_eq!(
        with("[{address: \"127.0.0.1:53\", resolver: a, allow: [10.0.0.0/8, \"::1\"]}]")
            .unwrap()
            .own
            .listen[0]
            .allow
            .len(),
        2
    );
    for (listen, expected) in [
        (
            "[{address: \"127.0.0.1:53\", resolver: b}]",
            "resolverd.listen[0].resolver: no resolver is named `b`",
        ),
        ("[{address: \"127.0.0.1:53\"}]", "`resolver` is missing"),
        (
            "[{address: \"127.0.0.1:53\", resolver: a, allow: 10.0.0.0/33}]",
            "a network such as",
        ),
    ] {
        let errors = with(listen).err().unwrap();
        assert!(errors.contains(expected), "{listen}: {errors}");
    }
}

/// Of the real c-ares and of the stub alike.
#[tokio::test]
async fn c_ares_answers_as_the_servers_do() {
    let server = NameServer::start(|asked| match (&*asked.name, asked.record_type) {
        ("a.test", RecordType::A) => Says::Records(vec![("a.test", 70, a(1)), ("a.test", 60, a(2))]),
        ("a.test", _) => Says::Records(vec![]),
        ("alias.test", _) => Says::Records(vec![("alias.test", 50, cname("_b.test"))]),
        ("_b.test", _) => Says::Records(vec![("_b.test", 80, a(3))]),
        ("many.test", _) => Says::TruncatedOverUdp(100),
        ("servfail.test", _) => Says::Code(ResponseCode::ServFail),
        ("refused.test", _) => Says::Code(ResponseCode::Refused),
        _ => Says::Code(ResponseCode::NXDomain),
    })
    .await;
    let config = kind(&format!(
        "type: c_ares, server: \"{}\", each_timeout: 500, each_tries: 2",
        server.address
    ));
    let servers = config.unwrap().servers(Path::new("/"), Tasks::new()).unwrap().unwrap();
    let found = async |name, family| servers.query(name, family).await.map_err(|failure| failure.error);
    let addresses = |found: Found| (found.addresses, found.ttl);
    assert_eq!(found("a.test", V4).await.map(addresses), Ok((vec![v4(1), v4(2)], 60)));
    assert_eq!(found("a.test", V6).await.map(|found| found.addresses), Ok(vec![]));
    assert_eq!(found("alias.test", V4).await.map(addresses), Ok((vec![v4(3)], 50)));
    assert_eq!(found("many.test", V4).await.map(|found| found.addresses.len()), Ok(100));
    assert_eq!(found("servfail.test", V4).await, Err(ResolveError::ServFail));
    assert_eq!(found("refused.test", V4).await, Err(ResolveError::Refused));
    assert_eq!(found("none.test", V4).await, Err(ResolveError::NotFound));
    let condition = servers.conditions().remove(0);
    assert_eq!(condition.address, server.address);
    assert!(condition.asked >= 7);
}

#[tokio::test]
async fn c_ares_gives_up_in_time() {
    let closed = NameServer::start(|_| Says::Nothing).await;
    let silent = kind(&format!(
        "type: c_ares, server: \"{}\", each_timeout: 50, each_tries: 2",
        closed.address
    ))
    .unwrap();
    let servers = silent.servers(Path::new("/"), Tasks::new()).unwrap().unwrap();
    assert_eq!(
        servers.query("a.test", V4).await.unwrap_err().error,
        ResolveError::Timeout
    );
}
