use std::io::Write as _;

use sluice_config::Load;

use super::*;

fn read(yaml: &str) -> Result<StatConfig, String> {
    let mut file = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    writeln!(file, "stat: {yaml}").unwrap();
    let mut load = Load::open(file.path());
    let config = load.daemon_section("proxyd", "stat");
    load.finish().map_err(|errors| errors.to_string())?;
    Ok(config.unwrap())
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_empty_map_sends_to_the_usual_port() {
    let config = read("{}").unwrap();
    assert_eq!(config, StatConfig::default());
    let target = config.statsd_target().unwrap();
    assert_eq!(target.to_string(), "127.0.0.1:8125");
    assert_eq!(config.prefix_for(Naming::Vey), "vey-proxy");
    assert_eq!(config.max_segment_size_for(&target.resolve().unwrap()), 1400);
}

/// CFG-05.
#[test]
fn a_map_without_an_address_sends_to_the_usual_port() {
    for yaml in [
        "{target_udp: {bind_ip: 127.0.0.2}}",
        "{target: {udp: {bind: 127.0.0.2}}}",
    ] {
        let expected = DatagramTarget::Udp {
            peer: addr("127.0.0.1:8125").into(),
            bind_ip: Some("127.0.0.2".parse().unwrap()),
        };
        assert_eq!(read(yaml).unwrap().statsd_target(), Some(expected), "{yaml}");
    }
}

#[test]
fn an_endpoint_alone_sends_nothing() {
    let config = read("{openmetrics: {listen: '127.0.0.1:9100'}}").unwrap();
    assert_eq!(config.statsd_target(), None);
    assert_eq!(config.openmetrics.unwrap().listen, Listen::Tcp(addr("127.0.0.1:9100")));
    let config = read("{target_unix: /run/statsd, openmetrics: {unix: /run/metrics}}").unwrap();
    assert_eq!(config.statsd_target(), Some(DatagramTarget::Unix("/run/statsd".into())));
    assert_eq!(config.openmetrics.unwrap().listen, Listen::Unix("/run/metrics".into()));
}

#[test]
fn every_key_is_read() {
    let config = read(
        "{backend_udp: {addr: '127.0.0.1:1', bind: 127.0.0.2}, prefix: p.q, cache_size: 1M, max_segment_size: 512, \
         emit_duration: 2s}",
    )
    .unwrap();
    let expected = StatConfig {
        target: Some(DatagramTarget::Udp {
            peer: addr("127.0.0.1:1").into(),
            bind_ip: Some([127, 0, 0, 2].into()),
        }),
        prefix: Some("p.q".to_owned()),
        cache_size: 1_000_000,
        max_segment_size: Some(512),
        emit_interval: Duration::from_secs(2),
        openmetrics: None,
    };
    assert_eq!(config, expected);
}

#[test]
fn what_is_wrong_is_told_with_its_path() {
    for (yaml, path, message) in [
        (
            "{openmetrics: {listen: '0.0.0.0:9100'}}",
            "stat.openmetrics.listen",
            "an address on loopback",
        ),
        (
            "{openmetrics: {}}",
            "stat.openmetrics",
            "one of `listen` and `unix` is needed",
        ),
        (
            "{openmetrics: {listen: '127.0.0.1:1', unix: /x}}",
            "stat.openmetrics",
            "one of `listen` and `unix` is needed",
        ),
        ("{emit_interval: 0}", "stat.emit_interval", "longer than 0"),
        ("{prefix: 'a b'}", "stat.prefix", "' ' is none of letters"),
        ("{target_upd: x}", "stat", "unknown key `target_upd`"),
    ] {
        let said = read(yaml).unwrap_err();
        assert!(said.contains(&format!(" {path}: ")), "{yaml}: {said}");
        assert!(said.contains(message), "{yaml}: {said}");
    }
}
