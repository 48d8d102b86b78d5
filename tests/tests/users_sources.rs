//! Users through the real proxyd: where they come from, and what becomes of a change.

use serde_json::{Value, json};
use sluice_testkit::{Daemon, Origin, assert_eventually, sluicectl};
use sluice_tests::users::{SHA512, TOKEN_JSON, basic, get, root, with_static, with_users};

/// AU-01.
#[tokio::test]
async fn a_reload_is_heard_on_connections_that_are_open() {
    let origin = Origin::hello("hi");
    let daemon = Daemon::proxyd(&with_static(&format!("{}, {{name: goes, token: ~}}", root("")), ""))
        .start()
        .await;
    let mut wire = daemon.connect("http").await;
    let mut other = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    assert_eq!(other.ask(get(&origin, &basic("goes", ""))).await.status, 200);
    daemon
        .reload_with(&with_static(
            &format!("{}, {{name: comes, token: ~}}", root("request_max_alive: 5")),
            "",
        ))
        .await;
    assert_eq!(wire.ask(get(&origin, &basic("root", "toor"))).await.status, 200);
    assert_eq!(other.ask(get(&origin, &basic("goes", ""))).await.status, 407);
    assert_eq!(wire.ask(get(&origin, &basic("comes", ""))).await.status, 200);
    // A file that is broken changes nothing.
    daemon.group().rewrite(&with_static("{name: x, tokn: ~}", ""));
    assert!(daemon.reload().await.is_err());
    assert_eq!(wire.ask(get(&origin, &basic("comes", ""))).await.status, 200);
    daemon.stop().await.assert_clean();
}

#[tokio::test]
async fn tasks_of_a_user_that_is_blocked_meanwhile_end() {
    let origin = Origin::echo();
    let silent = Origin::silent();
    let users = |keys: &str| {
        with_static(
            &format!("{{name: a, token: ~, {keys}}}"),
            "task_idle_check_interval: 100ms, task_idle_max_count: 100000",
        )
    };
    let daemon = Daemon::proxyd(&users("")).start().await;
    let mut tunnel = daemon.connect("http").await;
    tunnel
        .send(format!("CONNECT {} HTTP/1.1\r\n{}\r\n", origin.addr(), basic("a", "")))
        .await;
    assert!(tunnel.head().await.starts_with("HTTP/1.1 200 "));
    let mut waiting = daemon.connect("http").await;
    waiting.send(get(&silent, &basic("a", ""))).await;
    assert_eventually!(silent.received_text().contains("GET / "));
    assert_eq!(tunnel.echo(b"ping").await, b"ping");
    daemon.reload_with(&users("block_and_delay: 0s")).await;
    tunnel.assert_closed().await;
    let refused = waiting.answer().await;
    assert_eq!((refused.status, refused.header("connection")), (403, Some("close")));
    let stopped = daemon.stop().await;
    stopped.assert_clean();
    let mut records = stopped.log_records("Task");
    records.retain(|record| record["task_event"] == "Finished");
    assert_eq!(records.len(), 2, "{records:?}");
    for record in records {
        assert_eq!(record["reason"], "CanceledAsUserBlocked", "{record}");
    }
}

/// AU-04.
#[tokio::test]
async fn published_users_log_in_and_survive_a_reload() {
    let origin = Origin::hello("hi");
    let config = |keys: &str| with_users(&format!("static_users: [{}], cache: users.json", root(keys)), "", "");
    let daemon = Daemon::proxyd(&config("")).start().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(list_of("static", &daemon).await, json!(["root"]));
    assert_eq!(list_of("dynamic", &daemon).await, json!([]));
    let token: Value = serde_json::from_str(TOKEN_JSON).unwrap();
    let users = json!([{"name": "new", "token": token}, {"name": "root", "token": null}]);
    publish(&daemon, users).await.unwrap();
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    // The static one has the name.
    assert_eq!(wire.ask(get(&origin, &basic("root", "x"))).await.status, 407);
    daemon.reload_with(&config("request_max_alive: 7")).await;
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    // All or nothing.
    for (broken, told) in [
        (
            json!([{"name": "other"}, {"name": "x", "tokn": 1}]),
            "[1] `x`: unknown key `tokn`",
        ),
        (
            json!([{"name": "x"}, {"name": "x"}]),
            "[1]: the name `x` is taken already",
        ),
    ] {
        let error = publish(&daemon, broken).await.unwrap_err();
        assert!(error.message.contains(told), "{error:?}");
    }
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    let unknown = daemon
        .call("user-group.list-static-user", json!({"name": "stuff"}))
        .await;
    assert!(unknown.unwrap_err().message.contains("no user group is named `stuff`"));
    // And a restart, by the file.
    let group = daemon.group().clone();
    daemon.stop().await.assert_clean();
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(group.dir().join("users.json")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let daemon = group.proxyd().await;
    assert_eq!(list_of("dynamic", &daemon).await, json!(["new", "root"]));
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("new", "toor"))).await.status, 200);
    daemon.stop().await.assert_clean();
}

async fn list_of(kind: &str, daemon: &Daemon) -> Value {
    let listed = daemon
        .call(&format!("user-group.list-{kind}-user"), json!({"name": "staff"}))
        .await;
    listed.expect("the group is there")
}

async fn publish(daemon: &Daemon, users: Value) -> Result<Value, sluice_testkit::CtlError> {
    daemon
        .call("user-group.publish-user", json!({"name": "staff", "users": users}))
        .await
}

#[tokio::test]
async fn the_command_line_publishes_and_lists_users() {
    let daemon = Daemon::proxyd(&with_static(&root(""), "")).start().await;
    let group = daemon.group();
    let dir = group.runtime_dir();
    let dir = dir.to_str().unwrap();
    let run = async |args: &[&str]| sluicectl([&["-C", dir, "proxyd"], args].concat()).await;
    let many: Vec<Value> = (0..20_000)
        .map(|n| json!({"name": format!("user-{n:05}"), "token": SHA512}))
        .collect();
    let file = group.write_file("users.json", &Value::from(many).to_string());
    let published = run(&["user-group", "staff", "publish-user", file.to_str().unwrap()]).await;
    assert_eq!(
        (published.code, published.stdout.trim()),
        (Some(0), "notice: 20000 users published"),
        "{published:?}"
    );
    let listed = run(&["user-group", "staff", "list-dynamic-user"]).await;
    assert_eq!((listed.code, listed.stdout.lines().count()), (Some(0), 20_000));
    assert_eq!(listed.stdout.lines().next(), Some("user-00000"));
    let listed = run(&["user-group", "staff", "list-static-user"]).await;
    assert_eq!((listed.code, listed.stdout.trim()), (Some(0), "root"));
    let groups = run(&["list", "user-group"]).await;
    assert_eq!((groups.code, groups.stdout.trim()), (Some(0), "staff"));
    let broken = group.write_file("broken.json", r#"[{"name": "x", "tokn": 1}]"#);
    let refused = run(&["user-group", "staff", "publish", broken.to_str().unwrap()]).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("[0] `x`: unknown key `tokn`"), "{refused:?}");
    daemon.stop().await.assert_clean();
}

/// AU-02, AU-03.
#[tokio::test]
async fn a_source_is_looked_at_again_and_a_broken_one_changes_nothing() {
    let origin = Origin::hello("hi");
    let config = |keys: &str| {
        with_users(
            &format!("source: {{type: file, path: users.yml}}, cache: cache.json, refresh_interval: 100ms{keys}"),
            "",
            "",
        )
    };
    let group = sluice_testkit::Group::new(&config(""));
    group.write_file(
        "users.yml",
        "{name: first, token: ~}\n---\n- {name: second, token: ~}\n",
    );
    let daemon = group.proxyd().await;
    let mut wire = daemon.connect("http").await;
    assert_eq!(wire.ask(get(&origin, &basic("second", ""))).await.status, 200);
    let cache = group.dir().join("cache.json");
    let cached = || serde_json::from_str::<Value>(&std::fs::read_to_string(&cache).unwrap_or_default()).ok();
    assert_eventually!(cached() == Some(json!([{"name": "first", "token": null}, {"name": "second", "token": null}])));
    group.write_file("users.yml", "- {name: third, token: ~}\n");
    assert_eventually!(list_of("dynamic", &daemon).await == json!(["third"]));
    assert_eventually!(cached() == Some(json!([{"name": "third", "token": null}])));
    group.write_file("users.yml", "- {name: fourth, token: ~}\n- {name: bad, x: 1}\n");
    assert_eventually!(daemon.stderr().contains("unknown key `x`"));
    assert_eq!(list_of("dynamic", &daemon).await, json!(["third"]));
    assert_eq!(cached(), Some(json!([{"name": "third", "token": null}])));
    // Published users are there until the next fetch.
    group.write_file("users.yml", "- {name: fifth, token: ~}\n");
    publish(&daemon, json!([{"name": "published"}])).await.unwrap();
    assert_eventually!(list_of("dynamic", &daemon).await == json!(["fifth"]));
    // Without the source nobody fetches any more, and its users are gone with it.
    let bare = with_users("cache: cache.json", "", "");
    daemon.reload_with(&bare).await;
    assert_eq!(list_of("dynamic", &daemon).await, json!([]));
    publish(&daemon, json!([{"name": "stays"}])).await.unwrap();
    for n in 0..5 {
        daemon
            .reload_with(&config(&format!(", anonymous_user: {{name: a{n}}}")))
            .await;
        daemon.reload_with(&bare).await;
    }
    publish(&daemon, json!([{"name": "stays"}])).await.unwrap();
    // Longer than any job that was left would wait.
    let mut looks = 0;
    assert_eventually!({
        looks += 1;
        assert_eq!(list_of("dynamic", &daemon).await, json!(["stays"]));
        looks > 30
    });
    daemon.stop().await.assert_clean();
}

/// AU-03.
#[tokio::test]
async fn the_cache_is_written_again_after_a_cancelled_shutdown() {
    let group = sluice_testkit::Group::new(&with_users("cache: cache.json", "", ""));
    let daemon = group.proxyd().await;
    daemon.call("offline", json!({"delay": 600.0})).await.unwrap();
    daemon.call("cancel-shutdown", Value::Null).await.unwrap();
    publish(&daemon, json!([{"name": "a"}])).await.unwrap();
    let cached = std::fs::read_to_string(group.dir().join("cache.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&cached).unwrap(), json!([{"name": "a"}]));
    // A folder that is not there is an error, and nothing changes.
    daemon
        .reload_with(&with_users("cache: nowhere/cache.json", "", ""))
        .await;
    let error = publish(&daemon, json!([{"name": "b"}])).await.unwrap_err();
    assert!(error.message.contains("cannot be written"), "{error:?}");
    assert_eq!(list_of("dynamic", &daemon).await, json!(["a"]));
    daemon.stop().await.assert_clean();
}

/// AU-12.
#[tokio::test]
async fn faults_of_users_are_told_with_their_places() {
    let config = "
resolver: [{name: dns, type: deny_all}]
escaper: [{name: out, type: direct_fixed, resolver: dns}]
server:
  - {name: http, type: http_proxy, listen: '127.0.0.1:1', escaper: out, user_group: stuff}
user_group:
  - name: staff
    refresh_interval: 0
    source: {type: file, path: nowhere.json}
    static_users:
      - {name: a, expire: tomorrow}
      - {name: b}
      - {name: b, explicit_sites: [{id: x, tls_client: {ca_certificate: nowhere.pem}}]}
      - {name: c, egress_path_id_map: {}}
  - {name: other, type: ldap}
";
    let checked = sluice_testkit::Group::new(config)
        .daemon("proxyd")
        .arg("-t")
        .run()
        .await;
    assert_eq!(checked.code, Some(78));
    for told in [
        "server[0] `http`.user_group: no user group is named `stuff`\n    did you mean `staff`?",
        "user_group[0] `staff`.static_users[0] `a`.expire: expected a time",
        "user_group[0] `staff`.static_users[3] `c`.egress_path_id_map: `egress_path_id_map` is not built yet in this version",
        "user_group[1] `other`.type: the user group type `ldap` is not built yet in this version",
    ] {
        assert!(checked.stderr.contains(told), "{told}\n---\n{}", checked.stderr);
    }
    let config = config
        .replace("{name: a, expire: tomorrow}", "{name: a}")
        .replace("{name: c, egress_path_id_map: {}}", "{name: c}");
    let checked = sluice_testkit::Group::new(&config)
        .daemon("proxyd")
        .arg("-t")
        .run()
        .await;
    for told in [
        ":13:16: user_group[0] `staff`.static_users[2] `b`.name: the name `b` is taken already, by static_users[1]",
        "user_group[0] `staff`.static_users[2] `b`.explicit_sites[0].tls_client: ",
        "user_group[0] `staff`.refresh_interval: must be more than 0",
        "user_group[0] `staff`.source: ",
    ] {
        assert!(checked.stderr.contains(told), "{told}\n---\n{}", checked.stderr);
    }
}

#[tokio::test]
async fn the_graph_shows_who_authenticates_whom() {
    let group = sluice_testkit::Group::new(&with_static(&root(""), ""));
    let graph = group.daemon("proxyd").arg("-g").run().await;
    assert_eq!(graph.code, Some(0));
    assert!(graph.stdout.contains("user_group_staff"), "{}", graph.stdout);
}
