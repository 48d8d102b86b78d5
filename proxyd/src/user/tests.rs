//! Groups, logins and permits, without a server or a clock of their own.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use sluice_addr::Upstream;
use sluice_lifecycle::Tasks;
use sluice_telemetry::metrics::Registry;
use tokio::sync::Semaphore;

use super::config::BasicConfig;
use super::group::{Dynamic, UserGroup};
use super::kind::{ClientProtocol, RequestKind};
use super::login::{Gate, GateKeys, LoginError};
use super::passwords::Passwords;
use super::permit::{Login, Permit, Refusal};
use super::source::Users;
use crate::stats::{ServerStats, StatsBook};

const BASE: &str = "/nowhere";

struct Fixture {
    group: Arc<UserGroup>,
    server: Arc<ServerStats>,
    passwords: Passwords,
    slots: Arc<Semaphore>,
    keys: GateKeys,
    _stats: StatsBook,
}

fn config(yaml: &str) -> BasicConfig {
    sluice_config::decode_text(yaml).unwrap_or_else(|errors| panic!("{yaml}: {errors:?}"))
}

impl Fixture {
    fn new(yaml: &str) -> Self {
        let registry = Registry::new();
        let group = UserGroup::new("staff", &registry);
        let prepared = group.prepare(&config(yaml), Path::new(BASE), &Dynamic::Kept).unwrap();
        group.commit(prepared);
        let mut stats = StatsBook::new(registry);
        let slots = Arc::new(Semaphore::new(1));
        Self {
            group,
            server: stats.server("http", &Default::default()),
            passwords: Passwords::new(&Tasks::new(), &slots).unwrap(),
            slots,
            keys: GateKeys::default(),
            _stats: stats,
        }
    }

    fn reload(&self, yaml: &str) {
        let prepared = self
            .group
            .prepare(&config(yaml), Path::new(BASE), &Dynamic::Kept)
            .unwrap();
        self.group.commit(prepared);
    }

    fn publish(&self, json: &str) {
        let users = Users::from_json(json).unwrap();
        self.group
            .publish(&users.configs, || Ok::<_, super::source::UsersError>(()))
            .unwrap();
    }

    fn gate(&self) -> Gate {
        Gate::new(&self.group, &self.server, ClientProtocol::Http, self.keys.clone())
    }

    async fn login(&self, name: &str, password: &str) -> Result<Login, LoginError> {
        self.login_from(name, password, "192.0.2.1").await
    }

    async fn login_from(&self, name: &str, password: &str, ip: &str) -> Result<Login, LoginError> {
        let ip: IpAddr = ip.parse().unwrap();
        self.gate().login(&self.passwords, name, password, ip).await
    }

    fn anonymous(&self) -> Result<Login, LoginError> {
        self.gate().anonymous("192.0.2.1".parse().unwrap())
    }
}

/// The leave of a user with these keys.
pub(crate) async fn permit(keys: &str) -> Permit {
    let users = Fixture::new(&format!("static_users: [{{name: a, token: ~, {keys}}}]"));
    let mut login = users.login("a", "").await.ok().unwrap();
    get(&mut login, "site.test:80").ok().unwrap()
}

fn target(text: &str) -> Upstream {
    Upstream::parse(text).unwrap()
}

fn get(login: &mut Login, text: &str) -> Result<Permit, Refusal> {
    login.request(RequestKind::HttpForward, &target(text), || true)
}

fn refusal(result: Result<Permit, Refusal>) -> Option<Refusal> {
    result.err()
}

fn error(result: Result<Login, LoginError>) -> Option<LoginError> {
    result.err()
}

/// The password is `toor`.
const TOKEN: &str = "{salt: 113323bdab6fd2cc, sha1: ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96}";
const TOKEN_JSON: &str = r#"{"salt": "113323bdab6fd2cc", "sha1": "ff9d5c1a14328dd85ee95d4e574bd0558a1dfa96"}"#;

#[tokio::test(start_paused = true)]
async fn no_client_waits_forever_for_the_checks_of_others() {
    let crypt = "$5$saltsalt12345678$goDNvcrNj8LWxZUR8xlOdUf7utTe2wtzGpTUpwir9L1";
    let users = Fixture::new(&format!(
        "static_users: [{{name: slow, token: {crypt}}}, {{name: quick, token: {TOKEN}}}]"
    ));
    let slot = users.slots.acquire().await.unwrap();
    assert_eq!(error(users.login("slow", "x").await), Some(LoginError::Busy));
    assert!(users.login("quick", "toor").await.is_ok());
    drop(slot);
    assert_eq!(error(users.login("slow", "x").await), Some(LoginError::WrongPassword));
}

#[tokio::test]
async fn the_password_decides_and_without_a_token_none_is_right() {
    let users = Fixture::new(&format!(
        "static_users: [{{name: root, token: {TOKEN}}}, {{name: open, token: ~}}, {{name: shut}}]"
    ));
    assert!(users.login("root", "toor").await.is_ok());
    assert!(users.login("open", "anything").await.is_ok());
    for (name, password) in [("root", "root"), ("root", ""), ("shut", ""), ("shut", "shut")] {
        assert_eq!(
            error(users.login(name, password).await),
            Some(LoginError::WrongPassword),
            "{name}"
        );
    }
    assert_eq!(error(users.login("Root", "toor").await), Some(LoginError::UnknownUser));
    assert_eq!(error(users.anonymous()), Some(LoginError::NoCredentials));
    assert_eq!(users.server.sum(|c| &c.auth_failed), 6);
}

#[tokio::test]
async fn static_users_come_before_dynamic_ones_and_both_before_the_anonymous() {
    let users = Fixture::new("static_users: [{name: both, token: ~}]\nanonymous_user: {name: nobody}");
    users.publish(&format!(
        r#"[{{"name": "both"}}, {{"name": "new", "token": {TOKEN_JSON}}}]"#
    ));
    assert!(users.login("both", "x").await.is_ok());
    assert!(users.login("new", "toor").await.is_ok());
    // Who is known has to know the password, too.
    assert_eq!(error(users.login("new", "x").await), Some(LoginError::WrongPassword));
    let stranger = users.login("stranger", "x").await.ok().unwrap();
    assert_eq!(stranger.user.config.name.as_str(), "nobody");
    assert_eq!(users.anonymous().ok().unwrap().user.config.name.as_str(), "nobody");
}

#[tokio::test]
async fn the_log_has_the_name_as_given_and_none_for_nobody() {
    let users = Fixture::new("anonymous_user: {name: nobody}");
    let mut stranger = users.login("stranger", "x").await.ok().unwrap();
    let permit = get(&mut stranger, "a.test:80").ok().unwrap();
    assert_eq!(permit.log_name().map(|name| &**name), Some("stranger"));
    let mut nobody = users.anonymous().ok().unwrap();
    assert_eq!(get(&mut nobody, "a.test:80").ok().unwrap().log_name(), None);
}

/// AU-07.
#[tokio::test]
async fn expiry_and_blocks_hold_for_every_kind_of_user() {
    let past = "2020-01-02T03:04:05Z";
    let users = Fixture::new(&format!(
        "static_users: [{{name: late, token: ~, expire: '{past}'}}, {{name: bad, token: ~, block_and_delay: 0s}}]
anonymous_user: {{name: nobody, expire: '{past}'}}"
    ));
    users.publish(&format!(
        r#"[{{"name": "late2", "token": null, "expire": "{past}"}},
            {{"name": "bad2", "token": null, "block_and_delay": "3s"}},
            {{"name": "fine", "token": null, "expire": "2999-01-02T03:04:05Z"}}]"#
    ));
    let blocked = |seconds| {
        let delay = std::time::Duration::from_secs(seconds);
        Some(LoginError::Blocked { delay })
    };
    assert_eq!(error(users.login("late", "").await), Some(LoginError::Expired));
    assert_eq!(error(users.login("late2", "").await), Some(LoginError::Expired));
    assert_eq!(error(users.anonymous()), Some(LoginError::Expired));
    assert_eq!(error(users.login("stranger", "").await), Some(LoginError::Expired));
    assert_eq!(error(users.login("bad", "").await), blocked(0));
    assert_eq!(error(users.login("bad2", "").await), blocked(3));
    assert!(users.login("fine", "").await.is_ok());
    users.reload("anonymous_user: {name: nobody, block_and_delay: 1s}");
    assert_eq!(error(users.anonymous()), blocked(1));
    assert_eq!(users.server.sum(|c| &c.user_blocked), 3);
    assert_eq!(users.server.sum(|c| &c.auth_failed), 4);
}

/// AU-11.
#[tokio::test]
async fn what_stands_behind_a_name_is_the_next_proxy_and_not_the_user() {
    let mut users = Fixture::new("static_users: [{name: a, token: ~}, {name: a+x=1, token: ~}]");
    let params = |yaml: &str| sluice_config::decode_text(yaml).ok();
    users.keys.username_params = params("{keys_for_host: [x, y], domain_suffix: .p.test}");
    let mut login = users.login("a+x=1+y=2", "").await.ok().unwrap();
    let permit = get(&mut login, "a.test:80").ok().unwrap();
    assert_eq!(permit.log_name().map(|name| &**name), Some("a"));
    let egress = permit.egress().map(|egress| egress.addr.to_string());
    assert_eq!(egress.as_deref(), Some("1-2.p.test:10000"));
    let mut plain = users.login("a", "").await.ok().unwrap();
    assert!(get(&mut plain, "a.test:80").ok().unwrap().egress().is_none());
    assert!(matches!(
        error(users.login("a+z=1", "").await),
        Some(LoginError::Params(_))
    ));
    // Who is nobody does not hear what is wrong with it.
    assert_eq!(error(users.login("b+z=1", "").await), Some(LoginError::UnknownUser));
    users.keys.username_params = params("{keys_for_host: x, strip_suffix_for_auth: false}");
    let login = users.login("a+x=1", "").await.ok().unwrap();
    assert_eq!(login.user.config.name.as_str(), "a+x=1");
}

#[tokio::test]
async fn a_user_may_be_bound_to_networks() {
    let users = Fixture::new(
        "static_users: [{name: a, token: ~, ingress_network_filter: 192.0.2.0/24}]
anonymous_user: {name: nobody, ingress-net-filter: 198.51.100.0/24}",
    );
    assert!(users.login_from("a", "", "192.0.2.9").await.is_ok());
    assert_eq!(
        error(users.login_from("a", "", "198.51.100.1").await),
        Some(LoginError::ClientDenied)
    );
    assert!(users.login_from("x", "", "198.51.100.1").await.is_ok());
    assert_eq!(
        error(users.login_from("x", "", "192.0.2.9").await),
        Some(LoginError::UnknownUser)
    );
    let gate = users.gate();
    assert!(gate.admits_anonymous("198.51.100.1".parse().unwrap()));
    assert!(!gate.admits_anonymous("192.0.2.1".parse().unwrap()));
    assert_eq!(error(users.anonymous()), Some(LoginError::NoCredentials));
}

#[tokio::test]
async fn rules_are_asked_in_their_order() {
    let users = Fixture::new(
        "static_users:
  - name: a
    token: ~
    proxy_request_filter: [http_forward]
    dst_port_filter: [80, 443]
    dst_host_filter_set: {exact: good.test, child: below.test}
    http_user_agent_filter: [curl]",
    );
    let mut login = users.login("a", "").await.ok().unwrap();
    for (host, expected) in [
        ("good.test:80", None),
        ("x.below.test:443", None),
        ("good.test:81", Some(Refusal::DestinationDenied)),
        ("bad.test:80", Some(Refusal::DestinationDenied)),
    ] {
        assert_eq!(refusal(get(&mut login, host)), expected, "{host}");
    }
    let good = target("good.test:80");
    let banned = login.request(RequestKind::HttpConnect, &good, || panic!("not asked any more"));
    assert_eq!(refusal(banned), Some(Refusal::ProtocolBanned));
    // The server has a say, too, and it is asked last.
    let denied = login.request(RequestKind::HttpForward, &good, || false);
    assert_eq!(refusal(denied), Some(Refusal::DestinationDenied));
    let agents = |values: &[&'static str]| {
        let values: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
        login.check_user_agents(values.into_iter()).err()
    };
    assert_eq!(agents(&[]), None);
    assert_eq!(agents(&["Mozilla/5.0"]), None);
    assert_eq!(agents(&["Mozilla/5.0", "curl/8"]), Some(Refusal::UserAgentBlocked));
}

#[tokio::test]
async fn a_request_counts_as_alive_until_its_permit_is_dropped() {
    let users = Fixture::new("static_users: [{name: a, token: ~, request_max_alive: 2}]");
    let mut login = users.login("a", "").await.ok().unwrap();
    let first = get(&mut login, "a.test:80").ok().unwrap();
    let mut elsewhere = users.login("a", "").await.ok().unwrap();
    let _second = get(&mut elsewhere, "a.test:80").ok().unwrap();
    assert_eq!(refusal(get(&mut login, "a.test:80")), Some(Refusal::FullyLoaded));
    // Those that are refused for another reason take no place.
    users.reload("static_users: [{name: a, token: ~, request_max_alive: 3, dst_port_filter: 443}]");
    let mut after = users.login("a", "").await.ok().unwrap();
    assert_eq!(refusal(get(&mut after, "a.test:80")), Some(Refusal::DestinationDenied));
    let _third = get(&mut after, "a.test:443").ok().unwrap();
    assert_eq!(refusal(get(&mut after, "a.test:443")), Some(Refusal::FullyLoaded));
    drop(first);
    assert!(get(&mut after, "a.test:443").is_ok());
}

/// LM-02.
#[tokio::test]
async fn the_burst_of_a_rate_is_not_filled_up_by_a_reload() {
    let users = Fixture::new("static_users: [{name: a, token: ~, request_rate_limit: 5/h}]");
    let mut login = users.login("a", "").await.ok().unwrap();
    for _ in 0..3 {
        assert!(get(&mut login, "a.test:80").is_ok());
    }
    users.reload("static_users: [{name: a, token: ~, request_rate_limit: 5/h, request_max_alive: 9}]");
    let mut login = users.login("a", "").await.ok().unwrap();
    for _ in 0..2 {
        assert!(get(&mut login, "a.test:80").is_ok());
    }
    assert_eq!(refusal(get(&mut login, "a.test:80")), Some(Refusal::RateLimited));
    // Another quota is another limiter.
    users.reload("static_users: [{name: a, token: ~, request_rate_limit: 6/h}]");
    let mut login = users.login("a", "").await.ok().unwrap();
    assert!(get(&mut login, "a.test:80").is_ok());
}

#[tokio::test]
async fn connections_are_counted_at_their_first_request() {
    let users = Fixture::new("static_users: [{name: a, token: ~, connection_rate_limit: 2/h}]");
    let mut logins = Vec::new();
    for _ in 0..2 {
        let mut login = users.login("a", "").await.ok().unwrap();
        for _ in 0..3 {
            assert!(get(&mut login, "a.test:80").is_ok());
        }
        logins.push(login);
    }
    let mut third = users.login("a", "").await.ok().unwrap();
    assert_eq!(refusal(get(&mut third, "a.test:80")), Some(Refusal::RateLimited));
    assert!(get(&mut logins[0], "a.test:80").is_ok());
}

/// AU-01.
#[tokio::test]
async fn a_reload_adds_changes_and_removes_users() {
    let users = Fixture::new("static_users: [{name: stays, token: ~}, {name: goes, token: ~}]");
    let mut login = users.login("stays", "").await.ok().unwrap();
    let permit = get(&mut login, "a.test:80").ok().unwrap();
    let version = users.group.version();
    users.reload("static_users: [{name: stays, token: ~, block_and_delay: 1s}, {name: comes, token: ~}]");
    assert_ne!(users.group.version(), version);
    assert!(users.login("comes", "").await.is_ok());
    assert_eq!(error(users.login("goes", "").await), Some(LoginError::UnknownUser));
    assert!(users.login("stays", "").await.is_err());
    // What runs already is told.
    assert!(permit.is_blocked() && login.user.block().is_some());
    users.reload("static_users: [{name: stays, token: ~}]");
    assert!(!permit.is_blocked());
}

/// AU-04.
#[tokio::test]
async fn published_users_survive_a_reload_and_are_replaced_as_a_whole() {
    let users = Fixture::new("static_users: []");
    users.publish(r#"[{"name": "a", "token": null}, {"name": "b", "token": null}]"#);
    users.reload("anonymous_user: {name: nobody, expire: '2020-01-02T03:04:05Z'}");
    assert_eq!(users.group.members().dynamic(), ["a", "b"]);
    users.publish(r#"[{"Name": "b", "token": null}]"#);
    assert_eq!(users.group.members().dynamic(), ["b"]);
    assert!(users.login("b", "").await.is_ok());
}

#[test]
fn a_user_that_did_not_change_is_the_same_after_publishing() {
    let users = Fixture::new("static_users: []");
    users.publish(r#"[{"name": "a", "request_rate_limit": 5}, {"name": "b"}]"#);
    let before = users.group.members();
    users.publish(r#"[{"name": "a", "request_rate_limit": 5}, {"name": "b", "token": null}]"#);
    let after = users.group.members();
    let same = |name: &str| Arc::ptr_eq(before.find(name).unwrap(), after.find(name).unwrap());
    assert!(same("a") && !same("b"));
}

/// AU-05.
#[test]
fn an_exact_site_is_that_host_alone_and_the_nearest_domain_wins() {
    let users = Fixture::new(
        "static_users:
  - name: a
    explicit_sites:
      - {id: exact, exact_match: [a.b.c, 192.0.2.7], http_rsp_header_recv_timeout: 1s}
      - {id: near, child_match: b.c, http_rsp_header_recv_timeout: 2s}
      - {id: far, child_match: .c, subnet_match: [192.0.2.0/24], http_rsp_header_recv_timeout: 3s}
      - {id: net, subnet-match: 192.0.2.0/28, http_rsp_header_recv_timeout: 4s}",
    );
    let members = users.group.members();
    let user = members.find("a").unwrap();
    for (host, seconds) in [
        ("a.b.c", Some(1)),
        ("x.a.b.c", Some(2)),
        ("b.c", Some(2)),
        ("z.b.c", Some(2)),
        ("xb.c", Some(3)),
        ("c", Some(3)),
        ("cc", None),
        ("b.c.test", None),
        ("192.0.2.7", Some(1)),
        ("192.0.2.8", Some(4)),
        ("192.0.2.99", Some(3)),
        ("198.51.100.1", None),
    ] {
        let site = user.sites.find(&sluice_addr::Host::parse(host).unwrap());
        let timeout = site.and_then(|site| site.response_timeout).map(|time| time.as_secs());
        assert_eq!(timeout, seconds, "{host}");
    }
}

#[test]
fn sites_that_collide_are_refused() {
    for (sites, error) in [
        ("[{id: a}, {name: a}]", "two sites are called `a`"),
        (
            "[{id: a, exact_match: x.test}, {id: b, exact_match: [y.test, X.TEST]}]",
            "`exact_match` of two sites, or of one twice, holds `x.test`",
        ),
        (
            "[{id: a, child_match: .x.test}, {id: b, child_match: x.test}]",
            "`child_match` of two sites, or of one twice, holds `x.test`",
        ),
        (
            "[{id: a, subnet_match: [192.0.2.1, 192.0.2.1/32]}]",
            "`subnet_match` of two sites, or of one twice, holds `192.0.2.1/32`",
        ),
    ] {
        let yaml = format!("static_users: [{{name: u, explicit_sites: {sites}}}]");
        let errors = sluice_config::decode_text::<BasicConfig>(&yaml).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].ends_with(error), "{errors:?}");
    }
}

#[test]
fn users_in_json_and_yaml_are_the_same() {
    let json = Users::from_json(
        r#"[{"name": "a", "Request-Rate-Limit": "5/s", "explicit_sites": [{"id": "s", "exact_match": "x.test"}]}, {"name": "b"}]"#,
    );
    let yaml = Users::from_yaml(
        "name: a\nrequest_rate_limit: 5\nexplicit_sites: [{name: s, exact_match: [x.test]}]\n---\n- name: b\n---\n",
    );
    assert_eq!(json.unwrap().configs, yaml.unwrap().configs);
    for empty in ["", "  \n", "[]"] {
        assert_eq!(Users::from_json(empty).unwrap().configs, []);
        assert_eq!(Users::from_yaml(empty).unwrap().configs, []);
    }
}

#[test]
fn the_users_of_the_example_are_good() {
    let users = Users::from_json(include_str!("../../../examples/users/guests.json")).unwrap();
    assert_eq!(users.configs.len(), 2);
    assert!(users.configs[0].token.verify("open sesame"));
}

#[test]
fn a_broken_list_tells_all_that_is_wrong() {
    let error = |result: Result<Users, super::source::UsersError>| result.unwrap_err().to_string();
    assert_eq!(
        error(Users::from_json(
            r#"[{"name": "a", "tokn": 1}, {"name": ""}, {"expire": "x"}]"#
        )),
        "[0] `a`: unknown key `tokn`; [1].name: expected the name of a user, found an empty string; \
         [2].expire: expected a time such as `2024-01-02T03:04:05Z` or `2024-01-02T03:04:05+08:00`, found `x`; \
         [2]: `name` is missing"
    );
    assert_eq!(
        error(Users::from_json(r#"[{"name": "a"}, {"name": "a"}]"#)),
        "[1]: the name `a` is taken already"
    );
    assert!(error(Users::from_json("[{")).contains("line 1"));
    assert!(Users::from_json(r#"{"name": "a"}"#).is_err());
    assert!(error(Users::from_yaml("a: [")).contains(':'));
    let many = format!("[{}]", vec!["{\"x\": 1}"; 50].join(","));
    assert!(error(Users::from_json(&many)).contains("more errors"));
}
