//! resolverd between dnsmasq and dig.

use std::net::SocketAddr;

use serde_json::{Value, json};
use sluice_testkit::{Daemon, Dnsmasq, Group, Statsd, assert_eventually, sluicectl};
use tokio::process::Command;
use tokio::task::JoinSet;

/// What dig shows of an answer.
#[derive(Debug)]
struct Dug {
    status: String,
    /// Data of the answer section.
    data: Vec<String>,
    all: String,
}

async fn dig(server: SocketAddr, args: &[&str]) -> Dug {
    let mut dig = Command::new("dig");
    dig.arg(format!("@{}", server.ip()))
        .args(["-p", &server.port().to_string(), "+tries=1", "+time=15"])
        .args(args);
    let output = dig.output().await.expect("dig is installed");
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let status = all
        .split_once("status: ")
        .and_then(|(_, rest)| rest.split(',').next())
        .unwrap_or_default()
        .to_owned();
    let answers = all
        .split_once(";; ANSWER SECTION:\n")
        .map(|(_, rest)| rest)
        .unwrap_or_default();
    let data = answers.lines().take_while(|line| !line.is_empty());
    let data = data
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect();
    Dug { status, data, all }
}

/// One hickory resolver `up` that asks `dns`, open to other programs at `%dns%`.
fn yaml(dns: &Dnsmasq, keys: &str) -> String {
    format!(
        "resolver:
- {{name: up, type: hickory, server: 127.0.0.1, server_port: {}, {keys}}}
resolverd: {{listen: [{{address: '127.0.0.1:%dns%', resolver: up}}]}}
",
        dns.addr().port()
    )
}

#[tokio::test]
async fn names_are_answered_over_udp_and_tcp_from_a_cache() {
    let dns = Dnsmasq::new()
        .host("a.test", &["127.0.0.9", "127.0.0.8", "fd00::9"])
        .alias("alias.test", "a.test")
        .start()
        .await;
    let resolverd = Daemon::resolverd(&yaml(&dns, "")).start().await;
    let addr = resolverd.addr("dns");
    for transport in ["+notcp", "+tcp"] {
        let mut dug = dig(addr, &[transport, "a.test", "A"]).await;
        dug.data.sort();
        assert_eq!(
            (dug.status.as_str(), dug.data),
            ("NOERROR", vec!["127.0.0.8".to_owned(), "127.0.0.9".to_owned()])
        );
        assert_eq!(dig(addr, &[transport, "A.Test.", "AAAA"]).await.data, ["fd00::9"]);
        assert!(
            dig(addr, &[transport, "alias.test", "AAAA"])
                .await
                .data
                .contains(&"fd00::9".to_owned())
        );
        let unknown = dig(addr, &[transport, "nobody.test", "A"]).await;
        assert_eq!(
            (unknown.status.as_str(), unknown.data.len()),
            ("NXDOMAIN", 0),
            "{}",
            unknown.all
        );
    }
    // Each name and type was asked for once; the rest came from the cache.
    assert_eventually!(
        dns.queries("a.test") == 2 && dns.queries("nobody.test") == 1,
        "{}",
        dns.queries("a.test")
    );
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn many_who_ask_at_once_cost_one_query() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let resolverd = Daemon::resolverd(&yaml(&dns, "")).start().await;
    let addr = resolverd.addr("dns");
    let mut all = JoinSet::new();
    for _ in 0..20 {
        all.spawn(async move { dig(addr, &["a.test"]).await.data });
    }
    for data in all.join_all().await {
        assert_eq!(data, ["127.0.0.9"]);
    }
    assert_eventually!(dns.queries("a.test") == 1);
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_dead_server_costs_what_is_not_cached_until_it_is_back() {
    let mut dns = Dnsmasq::new()
        .host("a.test", &["127.0.0.9"])
        .host("b.test", &["127.0.0.8"])
        .start()
        .await;
    let keys = "request_timeout: 1s, each_tries: 1, negative_min_ttl: 1";
    let resolverd = Daemon::resolverd(&yaml(&dns, keys)).start().await;
    let addr = resolverd.addr("dns");
    assert_eq!(dig(addr, &["a.test"]).await.data, ["127.0.0.9"]);
    dns.kill().await;
    assert_eq!(dig(addr, &["a.test"]).await.data, ["127.0.0.9"]);
    let failed = dig(addr, &["b.test"]).await;
    assert_eq!(failed.status, "SERVFAIL", "{}", failed.all);
    assert!(failed.all.contains("; EDE: "), "{}", failed.all);
    let upstreams = resolverd
        .call("resolver.upstreams", json!({"resolver": "up"}))
        .await
        .unwrap();
    assert!(upstreams[0]["failed_in_a_row"].as_u64().unwrap() > 0, "{upstreams}");
    dns.restart().await;
    assert_eventually!(dig(addr, &["b.test"]).await.data == ["127.0.0.8"]);
    let stopped = resolverd.stop().await;
    stopped.assert_clean();
    let records = stopped.log_records("Resolve");
    let record = records
        .iter()
        .find(|record| record["domain"] == "b.test")
        .unwrap_or_else(|| panic!("{records:?}"));
    assert_eq!(
        (&record["resolver_name"], &record["query_type"]),
        (&json!("up"), &json!("A")),
        "{record}"
    );
    assert!(record["error_type"].is_string(), "{record}");
}

#[tokio::test]
async fn a_pair_goes_on_with_its_standby() {
    let mut first = Dnsmasq::new().host("a.test", &["127.0.0.1"]).start().await;
    let second = Dnsmasq::new()
        .host("a.test", &["127.0.0.2"])
        .host("b.test", &["127.0.0.2"])
        .start()
        .await;
    let resolverd = Daemon::resolverd(&format!(
        "resolver:
- {{name: pair, type: fail_over, primary: first, standby: second, fallback_delay: 5s}}
- {{name: first, type: hickory, server: 127.0.0.1, server_port: {}, request_timeout: 1s, each_tries: 1}}
- {{name: second, type: hickory, server: 127.0.0.1, server_port: {}}}
resolverd: {{listen: {{address: '127.0.0.1:%dns%', resolver: pair}}}}
",
        first.addr().port(),
        second.addr().port()
    ))
    .start()
    .await;
    let addr = resolverd.addr("dns");
    assert_eq!(dig(addr, &["a.test"]).await.data, ["127.0.0.1"]);
    first.kill().await;
    assert_eq!(dig(addr, &["b.test"]).await.data, ["127.0.0.2"]);
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn each_address_has_its_resolver_and_its_guests() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let resolverd = Daemon::resolverd(&format!(
        "resolver:
- {{name: up, type: hickory, server: 127.0.0.1, server_port: {}}}
- {{name: none, type: deny_all}}
resolverd:
  listen:
  - {{address: '[::1]:%dns%', resolver: up}}
  - {{address: '127.0.0.1:%denied%', resolver: none}}
  - {{address: '127.0.0.1:%strange%', resolver: up, allow: 192.0.2.0/24}}
",
        dns.addr().port()
    ))
    .start()
    .await;
    let ipv6 = SocketAddr::new("::1".parse().unwrap(), resolverd.group().port("dns"));
    for transport in ["+notcp", "+tcp"] {
        assert_eq!(dig(ipv6, &[transport, "a.test"]).await.data, ["127.0.0.9"]);
        let denied = dig(resolverd.addr("denied"), &[transport, "a.test"]).await;
        assert_ne!(denied.status, "NOERROR", "{}", denied.all);
        let strange = dig(resolverd.addr("strange"), &[transport, "a.test", "+time=2"]).await;
        assert_ne!(strange.status, "NOERROR", "{}", strange.all);
    }
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn the_cache_is_shown_and_flushed() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let resolverd = Daemon::resolverd(&yaml(&dns, "")).start().await;
    let query = json!({"resolver": "up", "domain": "a.test", "strategy": "Ipv4Only"});
    let answer = resolverd.call("resolver.query", query.clone()).await.unwrap();
    assert_eq!(answer["addresses"], json!(["127.0.0.9"]), "{answer}");
    let shown = resolverd
        .call("resolver.cache.show", json!({"resolver": "up"}))
        .await
        .unwrap();
    assert_eq!(
        (&shown[0]["domain"], &shown[0]["state"]),
        (&json!("a.test"), &json!("fresh")),
        "{shown}"
    );
    let dir = resolverd.group().runtime_dir();
    let ctl = async |args: &[&str]| {
        sluicectl([&["-C", dir.to_str().unwrap(), "resolverd", "resolver", "up"], args].concat()).await
    };
    let asked = ctl(&["query", "a.test"]).await;
    assert_eq!((asked.code, asked.stdout.trim()), (Some(0), "127.0.0.9"), "{asked:?}");
    assert_eq!(ctl(&["cache", "flush"]).await.code, Some(0));
    assert_eq!(
        resolverd
            .call("resolver.cache.show", json!({"resolver": "up"}))
            .await
            .unwrap(),
        json!([])
    );
    resolverd.call("resolver.query", query).await.unwrap();
    assert_eventually!(dns.queries("a.test") >= 2);
    let error = resolverd
        .call("resolver.query", json!({"resolver": "nobody", "domain": "a.test"}))
        .await
        .unwrap_err();
    assert_eq!(error.message, "no resolver is named `nobody`");
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_reload_keeps_the_cache_and_moves_the_doors() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let resolverd = Daemon::resolverd(&yaml(&dns, "")).start().await;
    assert_eq!(dig(resolverd.addr("dns"), &["a.test"]).await.data, ["127.0.0.9"]);
    resolverd
        .reload_with(&yaml(&dns, "negative_min_ttl: 5").replace("%dns%", "%other%"))
        .await;
    assert_eq!(dig(resolverd.addr("other"), &["a.test"]).await.data, ["127.0.0.9"]);
    assert_eq!(dns.queries("a.test"), 1);
    let gone = dig(resolverd.addr("dns"), &["+tcp", "a.test", "+time=1"]).await;
    assert_eq!(gone.status, "", "{}", gone.all);
    resolverd
        .group()
        .rewrite(&yaml(&dns, "").replace("resolver: up", "resolver: upp"));
    let error = resolverd.reload().await.unwrap_err();
    assert!(
        error.message.contains("`upp`") && error.message.contains("`up`"),
        "{error:?}"
    );
    assert_eq!(dig(resolverd.addr("other"), &["a.test"]).await.data, ["127.0.0.9"]);
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn queries_are_counted() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let statsd = Statsd::start();
    let helper = format!(
        "resolverd: {{listen: [{{address: '127.0.0.1:%dns%', resolver: up}}]}}\n{}",
        statsd.section()
    );
    let yaml = yaml(&dns, "");
    let yaml = format!("{}{helper}", yaml.split("resolverd:").next().unwrap());
    let resolverd = Daemon::resolverd(&yaml).start().await;
    for _ in 0..3 {
        assert_eq!(dig(resolverd.addr("dns"), &["a.test"]).await.data, ["127.0.0.9"]);
    }
    let tags = [("resolver", "up"), ("rr_type", "A")];
    assert_eventually!(
        statsd.total("sluice.resolver.query.total", &tags) == 3.0,
        "{:?}",
        statsd.lines()
    );
    assert_eventually!(
        statsd.total("sluice.resolver.query.cached", &tags) == 2.0,
        "{:?}",
        statsd.lines()
    );
    assert_eventually!(
        statsd.total("sluice.resolver.query.driver.total", &tags) == 1.0,
        "{:?}",
        statsd.lines()
    );
    resolverd.stop().await.assert_clean();
}

#[tokio::test]
async fn after_a_kill_it_starts_again_on_the_same_doors() {
    let dns = Dnsmasq::new().host("a.test", &["127.0.0.9"]).start().await;
    let group = Group::new(&yaml(&dns, ""));
    let group = group.resolverd().await.kill9().await;
    let resolverd = group.resolverd().await;
    assert_eq!(dig(group.addr("dns"), &["a.test"]).await.data, ["127.0.0.9"]);
    let listening = resolverd.status().await["listening"].take();
    assert_eq!(listening.as_array().map(Vec::len), Some(3), "{listening}");
    assert_eq!(
        resolverd.call("list", Value::Null).await.unwrap(),
        json!({"resolver": ["up"]})
    );
    resolverd.stop().await.assert_clean();
}
