//! proxyd and those who answer its name queries: resolverd, also when it dies or hangs, and any DNS server in its place.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::json;
use sluice_testkit::{Daemon, Dnsmasq, Group, Origin, assert_eventually, curl};
use sluice_tests::resolving_proxy;
use tokio::task::JoinSet;

async fn get(proxyd: &Daemon, url: &str) {
    curl(url).proxy(proxyd.addr("http")).run().await.assert(200, "hello");
}

async fn wait_for_peer(proxyd: &Daemon, state: &str) {
    assert_eventually!(
        proxyd.status().await["peers"]["resolverd"]["state"] == state,
        "{}",
        proxyd.status().await
    );
}

#[tokio::test]
async fn any_dns_server_will_do_over_udp_and_tcp() {
    let origin = Origin::hello("hello");
    for transport in ["udp", "tcp"] {
        let dns = Dnsmasq::new()
            .host("a.test", &["127.0.0.1"])
            .alias("alias.test", "a.test")
            .start()
            .await;
        let yaml = format!(
            "{}peers: {{resolverd: '{transport}:{}'}}\n",
            resolving_proxy(dns.addr(), "", ""),
            dns.addr()
        );
        let proxyd = Daemon::proxyd(&yaml).start().await;
        for name in ["a.test", "alias.test"] {
            let url = format!("http://{name}:{}/", origin.port());
            for _ in 0..3 {
                get(&proxyd, &url).await;
            }
            assert!(
                dns.queries(name) <= 2,
                "{transport}: one for each family, then the cache"
            );
        }
        let unknown = format!("http://unknown.test:{}/", origin.port());
        let answer = curl(&unknown).proxy(proxyd.addr("http")).run().await;
        assert_eq!(answer.status, 530);
        proxyd.stop().await.assert_clean();
    }
}

#[tokio::test]
async fn a_dns_server_that_comes_back_is_asked_again() {
    let origin = Origin::hello("hello");
    let mut dns = Dnsmasq::new().host("a.test", &["127.0.0.1"]).start().await;
    let yaml = format!(
        "{}peers: {{resolverd: 'udp:{}'}}\n",
        resolving_proxy(dns.addr(), "", ""),
        dns.addr()
    );
    dns.kill().await;
    let proxyd = Daemon::proxyd(&yaml).start().await;
    let url = format!("http://a.test:{}/", origin.port());
    let back = async {
        wait_for_peer(&proxyd, "unreachable").await;
        dns.restart().await;
    };
    tokio::join!(get(&proxyd, &url), back);
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn killing_resolverd_under_load_costs_nothing_cached_and_the_rest_waits() {
    let origin = Origin::hello("hello");
    let dns = Dnsmasq::new()
        .host("cached.test", &["127.0.0.1"])
        .domain("new.test", "127.0.0.1")
        .ttl(600)
        .start()
        .await;
    let group = Group::new(&resolving_proxy(dns.addr(), "", ""));
    let resolverd = group.resolverd().await;
    let proxyd = group.proxyd().await;
    let cached = format!("http://cached.test:{}/", origin.port());
    get(&proxyd, &cached).await;
    let group = resolverd.kill9().await;
    wait_for_peer(&proxyd, "unreachable").await;
    let addr = proxyd.addr("http");
    let mut waiting = JoinSet::new();
    for n in 0..20 {
        let url = format!("http://n{n}.new.test:{}/", origin.port());
        waiting.spawn(async move { curl(&url).proxy(addr).run().await.assert(200, "hello") });
    }
    let start = Instant::now();
    for _ in 0..20 {
        get(&proxyd, &cached).await;
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert!(waiting.try_join_next().is_none(), "nobody can have answered yet");
    let resolverd = group.resolverd().await;
    waiting.join_all().await;
    wait_for_peer(&proxyd, "connected").await;
    resolverd.stop().await.assert_clean();
    proxyd.stop().await.assert_clean();
}

#[tokio::test]
async fn a_hanging_resolverd_is_replaced_by_what_is_known() {
    let origin = Origin::hello("hello");
    let dns = Dnsmasq::new().host("cached.test", &["127.0.0.1"]).ttl(1).start().await;
    let yaml = resolving_proxy(dns.addr(), "", "").replace("type: hickory,", "type: hickory, positive_min_ttl: 1,");
    let group = Group::new(&yaml);
    let resolverd = group.resolverd().await;
    let proxyd = group.proxyd().await;
    let url = format!("http://cached.test:{}/", origin.port());
    get(&proxyd, &url).await;
    // once resolverd has forgotten the answer, proxyd's is past its time, too
    assert_eventually!({
        let shown = resolverd
            .call("resolver.cache.show", json!({"resolver": "dns"}))
            .await
            .unwrap();
        shown
            .as_array()
            .is_some_and(|answers| answers.iter().all(|answer| answer["query_type"] != "A"))
    });
    resolverd.signal(Signal::STOP);
    let start = Instant::now();
    get(&proxyd, &url).await;
    assert!(start.elapsed().as_secs() < 8, "{:?}", start.elapsed());
    let again = Instant::now();
    get(&proxyd, &url).await;
    assert!(again.elapsed().as_secs() < 2, "{:?}", again.elapsed());
    resolverd.signal(Signal::CONT);
    resolverd.stop().await.assert_clean();
    proxyd.stop().await.assert_clean();
}
