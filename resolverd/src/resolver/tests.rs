use std::{
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
};

use futures_util::future::join_all;
use hickory_net::proto::{op::ResponseCode, rr::RecordType};
use sluice_config::Load;
use sluice_telemetry::{EventLogs, metrics::Registry};
use sluice_wire::dns::Family::{V4, V6};
use tokio::time::advance;

use super::*;
use crate::{
    config::Config,
    nameserver::{NameServer, Says, a, aaaa, v4},
    resolvers::{Resolvers, Workshop},
};

/// The resolvers of a configuration, which a test may change.
struct Bench {
    _dir: tempfile::TempDir,
    file: PathBuf,
    workshop: Workshop,
    resolvers: Resolvers,
}

impl Bench {
    fn new(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let workshop = Workshop {
            tasks: Tasks::new(),
            logs: EventLogs::discard(),
            metrics: Registry::new(),
        };
        let file = dir.path().join("main.yml");
        let mut bench = Self {
            _dir: dir,
            file,
            workshop,
            resolvers: Resolvers::default(),
        };
        bench.reload(yaml).unwrap();
        bench
    }

    fn reload(&mut self, yaml: &str) -> anyhow::Result<()> {
        std::fs::write(&self.file, yaml).unwrap();
        let mut load = Load::open(&self.file);
        let config = Config::read(&mut load);
        load.finish().unwrap_or_else(|errors| panic!("{errors}"));
        let new = Resolvers::build(&config.resolvers, &self.resolvers, &self.workshop)?;
        new.take_over_from(&self.resolvers, &self.workshop.tasks);
        self.resolvers = new;
        Ok(())
    }

    fn find(&self, name: &str) -> Arc<Resolver> {
        Arc::clone(self.resolvers.find(name).unwrap())
    }
}

/// A hickory resolver over UDP.
fn hickory(name: &str, server: &NameServer) -> String {
    let (ip, port) = (server.address.ip(), server.address.port());
    format!("  - {{name: {name}, type: hickory, server: \"{ip}\", server_port: {port}}}\n")
}

fn section(nodes: &[String]) -> String {
    format!("resolver:\n{}", nodes.concat())
}

/// One resolver, `main`, that asks `server`.
fn one(server: &NameServer) -> Bench {
    Bench::new(&section(&[hickory("main", server)]))
}

/// Answers A queries for any name with an address that counts the queries, and this TTL.
async fn counting(ttl: u32) -> NameServer {
    let count = AtomicU8::new(0);
    NameServer::start(move |asked| {
        let name: &'static str = Box::leak(asked.name.clone().into_boxed_str());
        match asked.record_type {
            RecordType::A => Says::Records(vec![(name, ttl, a(count.fetch_add(1, Ordering::Relaxed)))]),
            _ => Says::Records(vec![]),
        }
    })
    .await
}

fn addresses(resolved: &Resolved) -> Vec<IpAddr> {
    resolved.outcome.as_ref().unwrap().to_vec()
}

fn error(resolved: &Resolved) -> ResolveError {
    resolved.outcome.as_ref().unwrap_err().error
}

/// Lets the tasks of a resolver do what they can do at once.
async fn until_idle(resolver: &Resolver) {
    while resolver.doing().0 > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_expired_answer_is_given_once_more_while_it_is_refreshed() {
    let server = counting(100).await;
    let bench = one(&server);
    let resolver = bench.find("main");
    let first = resolver.resolve("example.net", V4).await;
    assert_eq!(
        (addresses(&first), first.source, first.left.as_secs()),
        (vec![v4(0)], Source::Query, 70)
    );
    advance(Duration::from_secs(69)).await;
    assert_eq!(resolver.resolve("example.net", V4).await.source, Source::Cache);
    advance(Duration::from_secs(2)).await;
    for _ in 0..3 {
        let stale = resolver.resolve("example.net", V4).await;
        assert_eq!((addresses(&stale), stale.source), (vec![v4(0)], Source::Trash));
    }
    until_idle(&resolver).await;
    let fresh = resolver.resolve("example.net", V4).await;
    assert_eq!((addresses(&fresh), fresh.source), (vec![v4(1)], Source::Cache));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_answer_but_a_denial_replaces_it() {
    for (code, expected) in [
        (ResponseCode::ServFail, Source::Trash),
        (ResponseCode::NXDomain, Source::Cache),
    ] {
        let turn = AtomicU8::new(0);
        let server = NameServer::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
            0 => Says::Records(vec![("example.net", 100, a(1))]),
            _ => Says::Code(code),
        })
        .await;
        let bench = one(&server);
        let resolver = bench.find("main");
        resolver.resolve("example.net", V4).await;
        advance(Duration::from_secs(80)).await;
        assert_eq!(resolver.resolve("example.net", V4).await.source, Source::Trash);
        until_idle(&resolver).await;
        let after = resolver.resolve("example.net", V4).await;
        assert_eq!(after.source, expected, "{code:?}");
        assert_eq!(after.outcome.is_ok(), expected == Source::Trash);
        until_idle(&resolver).await;
    }
}

/// DNS-05.
#[tokio::test]
async fn everybody_who_waits_gets_the_failure_of_one_query() {
    let server = NameServer::start(|_| Says::Code(ResponseCode::ServFail)).await;
    let bench = one(&server);
    let resolver = bench.find("main");
    let all = join_all((0..50).map(|_| resolver.resolve("example.net", V4))).await;
    assert!(all.iter().all(|resolved| error(resolved) == ResolveError::ServFail));
    assert_eq!(server.asked().len(), 1);
}

/// DNS-01.
#[tokio::test]
async fn families_are_kept_apart_and_none_of_one_kind_is_no_error() {
    let server = NameServer::start(|asked| match asked.record_type {
        RecordType::AAAA => Says::Records(vec![("example.net", 60, aaaa(1))]),
        _ => Says::Records(vec![]),
    })
    .await;
    let bench = one(&server);
    let resolver = bench.find("main");
    for expected in [Source::Query, Source::Cache] {
        let v4 = resolver.resolve("example.net", V4).await;
        assert_eq!((addresses(&v4).len(), v4.source), (0, expected));
        let v6 = resolver.resolve("example.net", V6).await;
        assert_eq!((addresses(&v6).len(), v6.source), (1, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_for_the_negative_ttl() {
    let server = NameServer::start(|_| Says::Code(ResponseCode::Refused)).await;
    let node = hickory("main", &server).replace('}', ", negative_min_ttl: 7}");
    let bench = Bench::new(&section(&[node]));
    let resolver = bench.find("main");
    for (wait, source) in [(0, Source::Query), (6, Source::Cache), (1, Source::Query)] {
        advance(Duration::from_secs(wait)).await;
        let resolved = resolver.resolve("example.net", V4).await;
        assert_eq!((error(&resolved), resolved.source), (ResolveError::Refused, source));
    }
}

/// DNS-04.
#[tokio::test]
async fn extreme_ttls_are_clamped() {
    for (ttl, left) in [(0, 30), (1, 30), (u32::MAX, 3600)] {
        let server = counting(ttl).await;
        let bench = one(&server);
        let resolved = bench.find("main").resolve("example.net", V4).await;
        assert_eq!(resolved.left.as_secs(), left);
    }
}

#[tokio::test(start_paused = true)]
async fn one_query_has_a_cap() {
    let server = NameServer::start(|_| Says::Nothing).await;
    let node = hickory("main", &server).replace('}', ", protective_query_timeout: 2s, each_timeout: 60s}");
    let bench = Bench::new(&section(&[node]));
    let start = Instant::now();
    let resolved = bench.find("main").resolve("example.net", V4).await;
    assert_eq!(
        (error(&resolved), start.elapsed().as_secs()),
        (ResolveError::DriverTimedOut, 2)
    );
}

#[tokio::test]
async fn deny_all_denies_all() {
    let bench = Bench::new("resolver: [{name: none, type: deny_all}]");
    let resolved = bench.find("none").resolve("example.net", V4).await;
    assert_eq!(error(&resolved), ResolveError::NoResolverSet);
}

/// DNS-06.
#[tokio::test]
async fn a_server_that_comes_back_answers_under_load() {
    let server = counting(60).await;
    let address = server.address;
    let node = hickory("main", &server).replace('}', ", negative_min_ttl: 0}");
    let bench = Bench::new(&section(&[node]));
    let resolver = bench.find("main");
    server.stop().await;
    let names: Vec<String> = (0..500).map(|n| format!("n{n}.example.net")).collect();
    let failed = join_all(names.iter().map(|name| resolver.resolve(name, V4))).await;
    assert!(
        failed
            .iter()
            .all(|resolved| error(resolved) == ResolveError::ConnectionRefused)
    );
    let _server = NameServer::start_at(&address.to_string(), crate::nameserver::Listens::Plain, |_| {
        Says::Many(1)
    })
    .await;
    let answered = join_all(names.iter().map(|name| resolver.resolve(name, V4))).await;
    assert!(answered.iter().all(|resolved| addresses(resolved) == [v4(0)]));
}

mod fail_over {
    use super::*;

    fn pair(primary: &NameServer, standby: &NameServer, more: &str) -> Bench {
        Bench::new(&section(&[
            hickory("first", primary),
            hickory("second", standby),
            format!("  - {{name: both, type: fail_over, primary: first, standby: second{more}}}\n"),
        ]))
    }

    fn says(says: fn() -> Says) -> impl Future<Output = NameServer> {
        NameServer::start(move |_| says())
    }

    fn number(last: u8) -> Says {
        Says::Records(vec![("example.net", 60, a(last))])
    }

    async fn ask(bench: &Bench) -> Resolved {
        bench.find("both").resolve("example.net", V4).await
    }

    #[tokio::test]
    async fn the_primary_is_preferred() {
        let (primary, standby) = (says(|| number(1)).await, says(|| number(2)).await);
        let bench = pair(&primary, &standby, "");
        let resolved = ask(&bench).await;
        assert_eq!((addresses(&resolved), resolved.left.as_secs()), (vec![v4(1)], 30));
        assert_eq!(ask(&bench).await.source, Source::Cache);
    }

    #[tokio::test(start_paused = true)]
    async fn the_standby_steps_in_after_the_delay() {
        let (primary, standby) = (says(|| Says::Nothing).await, says(|| number(2)).await);
        let bench = pair(&primary, &standby, ", fallback_delay: 300ms");
        let start = Instant::now();
        assert_eq!(addresses(&ask(&bench).await), [v4(2)]);
        assert_eq!(start.elapsed().as_millis() / 100, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_standby_steps_in_at_once_when_the_primary_fails() {
        let (primary, standby) = (
            says(|| Says::Code(ResponseCode::ServFail)).await,
            says(|| number(2)).await,
        );
        let bench = pair(&primary, &standby, ", fallback_delay: 300ms");
        let start = Instant::now();
        assert_eq!(addresses(&ask(&bench).await), [v4(2)]);
        assert!(start.elapsed().as_millis() < 300);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_counts_if_both_fail() {
        let (primary, standby) = (
            says(|| Says::Code(ResponseCode::Refused)).await,
            says(|| Says::Nothing).await,
        );
        let bench = pair(&primary, &standby, ", negative_ttl: 5");
        assert_eq!(error(&ask(&bench).await), ResolveError::Timeout);
        let kept = ask(&bench).await;
        assert_eq!((kept.source, kept.left.as_secs()), (Source::Cache, 5));
    }

    #[tokio::test]
    async fn an_empty_answer_is_good_unless_it_is_said_not_to_be() {
        let (primary, standby) = (says(|| Says::Records(vec![])).await, says(|| number(2)).await);
        assert!(addresses(&ask(&pair(&primary, &standby, "")).await).is_empty());
        assert_eq!(
            addresses(&ask(&pair(&primary, &standby, ", retry_empty_record: true")).await),
            [v4(2)]
        );
        let empty = says(|| Says::Records(vec![])).await;
        assert!(addresses(&ask(&pair(&primary, &empty, ", retry_empty_record: true")).await).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_past_its_time_is_the_last_resort() {
        let turn = AtomicU8::new(0);
        let primary = NameServer::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
            0 => Says::Records(vec![("example.net", 600, a(1))]),
            _ => Says::Code(ResponseCode::ServFail),
        })
        .await;
        let good = AtomicU8::new(0);
        let standby = NameServer::start(move |_| match good.fetch_add(1, Ordering::Relaxed) {
            1 => Says::Records(vec![("example.net", 60, a(2))]),
            _ => Says::Code(ResponseCode::ServFail),
        })
        .await;
        let bench = pair(&primary, &standby, "");
        assert_eq!(addresses(&ask(&bench).await), [v4(1)]);
        advance(Duration::from_secs(580)).await; // the primary's is trash now, the standby's failure is forgotten
        assert_eq!(addresses(&ask(&bench).await), [v4(2)]);
        bench.find("both").memory.table().flush(None);
        bench.find("second").memory.table().flush(None);
        let last_resort = ask(&bench).await;
        assert_eq!((addresses(&last_resort), last_resort.left.as_secs()), (vec![v4(1)], 0));
    }
}

mod reload {
    use super::*;

    #[tokio::test]
    async fn what_did_not_change_goes_on_as_it_is() {
        let server = counting(60).await;
        let yaml = section(&[hickory("main", &server)]);
        let mut bench = Bench::new(&yaml);
        let before = bench.find("main");
        bench.reload(&yaml.replace("main,", "\"main\",")).unwrap();
        assert!(Arc::ptr_eq(&before, &bench.find("main")));
    }

    #[tokio::test]
    async fn a_change_in_place_keeps_what_was_learnt() {
        let server = counting(60).await;
        let yaml = section(&[hickory("main", &server)]);
        let mut bench = Bench::new(&yaml);
        let before = bench.find("main");
        before.resolve("example.net", V4).await;
        bench.reload(&yaml.replace('}', ", each_tries: 5}")).unwrap();
        let after = bench.find("main");
        assert!(!Arc::ptr_eq(&before, &after));
        assert_eq!(after.resolve("example.net", V4).await.source, Source::Cache);
    }

    #[tokio::test]
    async fn another_kind_starts_from_nothing() {
        let server = counting(60).await;
        let yaml = section(&[hickory("main", &server)]);
        let mut bench = Bench::new(&yaml);
        bench.find("main").resolve("example.net", V4).await;
        let (ip, port) = (server.address.ip(), server.address.port());
        bench
            .reload(&format!(
                "resolver: [{{name: main, type: c_ares, server: \"{ip}:{port}\"}}]"
            ))
            .unwrap();
        assert_eq!(
            bench.find("main").resolve("example.net", V4).await.source,
            Source::Query
        );
    }

    /// DNS-07.
    #[tokio::test]
    async fn a_pair_with_another_child_is_rebuilt() {
        let (old, new) = (counting(60).await, NameServer::start(|_| Says::Many(1)).await);
        let pair = "  - {name: both, type: fail_over, primary: child, standby: spare}\n".to_owned();
        let spare = "  - {name: spare, type: deny_all}\n".to_owned();
        let yaml = |server| section(&[pair.clone(), hickory("child", server), spare.clone()]);
        let mut bench = Bench::new(&yaml(&old));
        let before = bench.find("both");
        before.resolve("example.net", V4).await;
        bench.reload(&yaml(&new)).unwrap();
        let after = bench.find("both");
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(Arc::ptr_eq(after.children().next().unwrap(), &bench.find("child")));
        bench.find("child").memory.table().flush(None);
        assert_eq!(addresses(&after.resolve("example.net", V4).await), [v4(0)]);
        assert_eq!(new.asked().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_resolvers_leave_no_tasks_behind() {
        let server = NameServer::start(|_| Says::Nothing).await;
        let yaml = |turn: usize| section(&[hickory("main", &server).replace('}', &format!(", each_tries: {turn}}}"))]);
        let mut bench = Bench::new(&yaml(1));
        for turn in 2..100 {
            let resolver = bench.find("main");
            let _ = futures_util::poll!(Box::pin(resolver.resolve(&format!("n{turn}"), V4)));
            bench.reload(&yaml(turn)).unwrap();
        }
        assert!(bench.workshop.tasks.wait(Duration::from_secs(90)).await);
    }

    #[tokio::test]
    async fn a_broken_file_changes_nothing() {
        let server = counting(60).await;
        let yaml = section(&[hickory("main", &server)]);
        let mut bench = Bench::new(&yaml);
        let before = bench.find("main");
        let encryption = ", encryption: {tls_name: a.test, tls_client: {ca_certificate: missing.pem}}}";
        let error = bench.reload(&yaml.replace('}', encryption)).unwrap_err();
        assert!(
            format!("{error:#}").contains("resolver `main`: the TLS client of `encryption`"),
            "{error:#}"
        );
        assert!(Arc::ptr_eq(&before, &bench.find("main")));
    }
}
